"""Which files are images: told by content, so that one list serves all commands and any file name.

A suffix counts only where content says nothing: for files that are known by their name but damaged, which must be
reported rather than passed over, and for the few formats whose first bytes are those of another format.
"""

import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from medsass import files

HEAD = 1024  # bytes of a file in which its kind can be told
KINDS = {  # kind -> its usual suffixes
    "photo": ".apng .avif .bmp .gif .heic .heif .j2k .jfif .jls .jp2 .jpeg .jpg .jxl .pam .pbm .pgm .png .pnm .ppm .webp",
    "tiff": ".btf .flex .lsm .qptiff .stk .tf8 .tif .tiff",
    "slide": ".bif .ndpi .scn .svs",
    "openslide": ".mrxs .svslide .vms .vmu",
    "dicom": ".dcm .dicom .ima",
    "array": ".npy .npz",
    "hdf5": ".h5 .hdf5 .ims",
    "volume": ".mha .mhd .nhdr .nii .nii.gz .nrrd",
}
SUFFIXES = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes.split()}
IN_PARTS = ("array", "slide", "openslide", "hdf5", "volume", "zarr")  # kinds of which a reader needs the file itself
SLIDES = frozenset(suffix for suffix, kind in SUFFIXES.items() if kind in ("slide", "openslide"))
ZARR = (".zattrs", ".zgroup", ".zarray", "zarr.json")  # files that make a folder a Zarr group or array

NPY_MAGIC = b"\x93NUMPY"
_OBJECTS = b"'descr': '|O'"  # of an .npy file that holds pickled objects
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n\r]*[\n\r])+\d|P7\n")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PHOTOS = (PNG_MAGIC[:4], JPEG_MAGIC, b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP", b"\0\0\0\x0cJXL ", b"\xff\n", b"GIF8")
_VIRTUAL = (b"[Virtual Microscope Specimen]", b"[Uncompressed Virtual Microscope Specimen]")
NIFTI = {b"n+1\0": 344, b"ni1\0": 344, b"n+2\0": 4, b"ni2\0": 4}  # of NIfTI 1 and 2 -> its place in the header
GZIP = b"\x1f\x8b"
_ANALYZE = (struct.pack("<i", 348), struct.pack(">i", 348))  # the size of its header
_META = (".mha", ".mhd")
_META_IMAGE = re.compile(rb"\s*ObjectType\s*[=:]\s*Image\s")
_META_LINE = re.compile(rb"\s*\w[^=:\n]*[=:][^\n]*\n")
_DICOMDIR = b"1.2.840.10008.1.3.10"
_OTHERS = (
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".dng",
    ".vsi",
)  # TIFF whose main image is in a form that no reader here knows
_VOXELS = (".raw", ".zraw", ".img")
_DETACHED = (".hdr", ".mhd", ".nhdr")  # headers of volumes whose voxels are in a file of the same name
_JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini")


def kind(head: bytes, path: PurePath) -> str:
    """Return the kind of image that a file is, a key of `KINDS`; "" where it is no image that can be read.

    Args:
        head: the first `HEAD` bytes, or all of a smaller file.
        path: the file's name.
    """
    suffix = _suffix(path)
    if suffix in _OTHERS or (head.startswith(NPY_MAGIC) and _OBJECTS in head):
        return ""
    return _by_content(head, suffix) or SUFFIXES.get(suffix, "")


def _suffix(path: PurePath) -> str:
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()


def is_image(path: Path) -> bool:
    """Return whether a file or folder, local or at an address, can be an image. It is looked into where its name says
    nothing; one that cannot be opened may be one, and is reported when it is read.
    """
    if _suffix(path) in SUFFIXES and _suffix(path) != ".npy":  # which may hold objects
        return True
    if not files.is_local(path):
        place: Any = path
        return kind(place.fs.cat_file(place.path, start=0, end=HEAD), path) != ""
    return is_zarr(path) if path.is_dir() else kind(head(path), path) != ""


def by_name(path: str) -> str:
    """Return the kind of image that a file is by its suffix alone, "" where that says nothing."""
    suffix = path[path.rfind(".") :].lower()
    return SUFFIXES.get(".nii.gz" if suffix == ".gz" and path.lower().endswith(".nii.gz") else suffix, "")


def is_photo(path: str) -> bool:
    """Return whether a file has the name of a photograph, which holds one image, or one to read."""
    return by_name(path) == "photo"


def _by_content(head: bytes, suffix: str) -> str:
    if head[128:132] == b"DICM":  # first: a DICOM file may begin as a TIFF file does
        return "" if _DICOMDIR in head else "dicom"
    if head.startswith(NPY_MAGIC) or (head.startswith(ZIP_MAGIC) and (suffix == ".npz" or _holds_arrays(head))):
        return "array"
    if head.startswith(TIFF_MAGIC):
        return "slide" if SUFFIXES.get(suffix) == "slide" else "tiff"
    if _HDF5 in (head[:8], head[512:520]):  # MATLAB 7.3 puts a text of 512 bytes before it
        return "hdf5"
    if head.startswith(_VIRTUAL) or (suffix == ".mrxs" and head.startswith(JPEG_MAGIC)):
        return "openslide"
    if _is_photo(head):
        return "photo"
    if volume(head, suffix):
        return "volume"
    return "dicom" if _is_bare_dicom(head) else ""


def _is_photo(head: bytes) -> bool:
    if head.startswith(_PHOTOS) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return True
    if head[4:8] == b"ftyp":
        return any(brand in head[8:40] for brand in (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1"))
    if head[:2] == b"BM":
        return int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124)  # of its second header
    return _PNM.match(head) is not None


def volume(head: bytes, suffix: str = ".hdr") -> str:
    """Return "nifti" (also for ANALYZE, told by its suffix too), "nrrd" or "meta" (by its suffix where needed) for the first
    `HEAD` bytes of a volume, packed by gzip or not; "" for other files.
    """
    head = _unzipped(head)
    if any(head[place : place + 4] == magic for magic, place in NIFTI.items()):
        return "nifti"
    if suffix == ".hdr" and head.startswith(_ANALYZE):
        return "nifti"
    if head.startswith(b"NRRD000"):
        return "nrrd"
    return "meta" if _is_meta(head, suffix) else ""


def _is_meta(head: bytes, suffix: str) -> bool:
    """Return whether a file begins as a MetaImage header, whose size may stand behind more metadata than `head` holds."""
    keys = {line.partition(b"=")[0].strip() for line in head.splitlines()}
    if _META_IMAGE.match(head) or {b"NDims", b"DimSize"} <= keys:
        return True
    return suffix in _META and _META_LINE.match(head) is not None


def _unzipped(head: bytes) -> bytes:
    """Return what the first bytes of a gzip file hold, up to damage; those of other files unchanged."""
    if not head.startswith(GZIP):
        return head
    unpacked, stream = b"", zlib.decompressobj(31)
    with suppress(zlib.error):
        for byte in head:
            unpacked += stream.decompress(bytes([byte]))
            if len(unpacked) >= HEAD:
                break
    return unpacked[:HEAD]


def _holds_arrays(head: bytes) -> bool:
    """Return whether the first member of a ZIP archive is an array of NumPy."""
    return head[30 : 30 + int.from_bytes(head[26:28], "little")].endswith(b".npy")


def _is_bare_dicom(head: bytes) -> bool:
    """Return whether a file begins as a DICOM data set without the preamble: two elements of group 2 or 8, in order."""
    at, last = 0, (0, -1)
    for _ in range(2):
        if len(head) < at + 12:
            return False
        tag = struct.unpack_from("<HH", head, at)
        explicit = head[at + 4 : at + 6].isalpha() and head[at + 4 : at + 6].isupper()
        if explicit and head[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT", b"UC", b"UR"):
            at += 12 + int.from_bytes(head[at + 8 : at + 12], "little")
        elif explicit:
            at += 8 + int.from_bytes(head[at + 6 : at + 8], "little")
        else:
            at += 8 + int.from_bytes(head[at + 4 : at + 8], "little")
        if tag[0] not in (2, 8) or tag <= last:
            return False
        last = tag
    return True


def headers(path: str) -> list[str]:
    """Return the files that may be the header of a volume whose voxels a file of this name can hold."""
    first, dot, suffix = path.rpartition(".")
    return [first + header for header in _DETACHED] if dot + suffix.lower() in _VOXELS else []


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a Zarr group or array, such as an OME-Zarr image, which is one image."""
    return any((folder / name).is_file() for name in ZARR)


def head(path: Path) -> bytes:
    """Return the first `HEAD` bytes of a file, none of one that cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:  # reported when the image is read
        return b""


def is_junk(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, or left behind by macOS or Windows."""
    return name.startswith(".") or name in _JUNK
