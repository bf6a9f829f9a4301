"""The EXIF orientation of an image. The C++ engine has the same rules (cpp_engine/src/image/exif.cpp)."""

from __future__ import annotations

from platform.data.dataset import Images

PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_SIZES = {1: 1, 3: 2, 4: 4}
"""Bytes of a value of the types BYTE, SHORT and LONG."""


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in the first directory of EXIF data, with or without the prefix of JPEG files.

    Returns:
        1 to 8; 1 if there is none, or the data are damaged: metadata do not make an image unusable.
    """
    tiff = exif.removeprefix(PREFIX)
    little = tiff.startswith(b"II*\0")
    if not little and not tiff.startswith(b"MM\0*"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], "little" if little else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(tiff) - 11), 12):
        if number(entry, 2) == _ORIENTATION:
            size = _SIZES.get(number(entry + 2, 2))
            value = number(entry + 8, size) if size and number(entry + 4, 4) == 1 else 1
            return value if 1 <= value <= 8 else 1
    return 1


def apply_orientation(image: Images, orientation: int) -> Images:
    """Mirror or rotate an image [H, W, 3] with this EXIF orientation; 5 to 8 exchange height and width."""
    if orientation in (2, 3, 7, 8):
        image = image[:, ::-1]
    if orientation in (3, 4, 6, 7):
        image = image[::-1]
    return image.transpose(1, 0, 2) if orientation >= 5 else image
