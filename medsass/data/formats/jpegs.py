"""The header of the commonest JPEG: 8 bits, gray or three components, upright as far as it says. Read without Pillow,
because a dataset is often nothing but such files, each of which a shard keeps as it is.
"""

_EXIF, _ADOBE, _SEVERAL = 0xE1, 0xEE, 0xE2  # segments in which an orientation, other colours or more images may stand
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive frames, Huffman-coded
_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length


def plain(data: bytes) -> tuple[int, int] | None:
    """(height, width) where these bytes are such a JPEG file by its header (ITU T.81, annex B), else None."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            height, width = int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
            common = data[at + 4] == 8 and data[at + 9] in (1, 3) and height and width
            return (height, width) if common else None
        named = data[at + 4 : at + 8]
        if (
            marker == _ADOBE
            or (marker == _EXIF and named == b"Exif")
            or (marker == _SEVERAL and named == b"MPF\0")
            or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC))
            or marker in (0xD9, 0xDA)
        ):
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
