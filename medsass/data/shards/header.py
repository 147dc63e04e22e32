"""The 512 bytes before each file in a tar file, written and read as medsass writes them: POSIX ustar, without owner or time."""

import tarfile

import numpy as np
from numpy.typing import NDArray

NAME, SIZE, _CHECKSUM = (
    100,
    slice(124, 135),
    slice(148, 154),
)  # bytes of a name; where the others stand, in octal digits
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of an empty file: the parts that never change
_FIXED = _HEADER[NAME:124], _HEADER[135:148], _HEADER[156:]  # around its size and its checksum
_SUM = sum(map(sum, _FIXED)) + 8 * ord(" ")  # of their bytes, the checksum's own as spaces
_HEADER_BYTES = np.frombuffer(_HEADER, np.uint8)
_TAIL = 160  # the bytes from there on never change
_TAIL_SUM = int(_HEADER_BYTES[_TAIL:].sum()) + 8 * ord(" ")


def header(name: str, size: int) -> bytes:
    """Return the 512 bytes before a file in a tar (POSIX ustar), as `tarfile` writes them for mode 644, no owner or time.

    Raises `ValueError` for a name of more than 100 bytes and for a size that the format cannot hold.
    """
    text = name.encode()
    if len(text) > NAME or size >> 33:
        raise ValueError(f"{name}: {size} bytes do not fit into a tar file, whose names have at most {NAME} bytes")
    digits = b"%011o" % size
    checksum = b"%06o\0 " % (_SUM + sum(text) + sum(digits))
    return b"".join((text.ljust(NAME, b"\0"), _FIXED[0], digits, _FIXED[1], checksum, _FIXED[2]))


def read_headers(rows: NDArray[np.uint8]) -> tuple[list[str | None], NDArray[np.int64]]:
    """Read headers, each a row of 512 bytes.

    Returns the name that each holds, or None if it is not what `header` returns for a name and a size, and the sizes.
    """
    head = rows[:, :_TAIL]
    same = head == _HEADER_BYTES[:_TAIL]
    named, text = head[:, :NAME], head[:, :NAME] >= ord(" ")
    same[:, :NAME] = text | (named == 0)
    same[:, 1:NAME] &= text[:, 1:] <= text[:, :-1]  # zeros come last
    digits, sums = head[:, SIZE] - ord("0"), head[:, _CHECKSUM] - ord("0")
    same[:, SIZE], same[:, _CHECKSUM] = digits < 8, sums < 8
    summed = head.sum(1, np.int64) - head[:, 148:156].sum(1, np.int64) + _TAIL_SUM
    tail = rows.view(np.uint64)[:, _TAIL // 8 :] == _HEADER_BYTES.view(np.uint64)[_TAIL // 8 :]
    plain = same.all(1) & tail.all(1) & (sums @ (1 << np.arange(15, -3, -3)) == summed)
    names = np.where(plain, np.ascontiguousarray(named).view(f"S{NAME}")[:, 0], b"").tolist()
    texts = b"\n".join(names).decode("utf-8", "surrogateescape").split("\n")
    sizes = digits @ (1 << np.arange(30, -3, -3))
    return [text if usual else None for text, usual in zip(texts, plain.tolist(), strict=True)], sizes
