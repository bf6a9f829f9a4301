"""Decode JPEG files with libjpeg-turbo, and refuse damaged ones.

Pillow hides libjpeg's warnings: of damaged data it returns an image whose rest is gray. simplejpeg reports
the first warning. The segments that matter are written again before decoding, because libjpeg warns about
benign ones too. docs/engine.md has the rules; the C++ engine has the same (src/image/jpeg_segments.cpp).
"""

from __future__ import annotations

import io
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from PIL import Image

from platform.data.dataset import Images
from platform.data.images.exif import PREFIX, exif_orientation

MAGIC = b"\xff\xd8\xff"

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DQT, _DRI, _APP0, _APP1, _APP14, _APP15, _COM = 0xDA, 0xDB, 0xDD, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Frames with a discrete cosine transform: baseline, extended, progressive; the last two arithmetic."""
_PROGRESSIVE = {0xC2, 0xCA}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC8, 0xCB, 0xCD, 0xCE, 0xCF}
_JFIF = bytes.fromhex("0010 4a46494600 0101 00 0001 0001 00 00")
_LUMA_SAMPLING = {0x11, 0x12, 0x14, 0x21, 0x22, 0x41}

# A marker is one or more 0xFF, then its code. 0xFF 0x00 is data; 0x01 and 0xD0 to 0xD7 have no segment.
_NEXT_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)
_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(?!d[0-7])(..)")


@dataclass(frozen=True)
class _Segment:
    code: int
    data: bytes
    """Length and payload; of a start of scan also the entropy-coded data."""

    @property
    def payload(self) -> bytes:
        return self.data[2:]

    def __bytes__(self) -> bytes:
        return bytes((0xFF, self.code)) + self.data


def decode_jpeg(content: bytes, *, max_pixels: int) -> tuple[Images, int, tuple[int, ...]]:
    """Decode the content of a JPEG file.

    Returns:
        uint8 [H, W, 3], RGB; the EXIF orientation to apply; and the 64 entries of the first quantization
        table in zigzag order, empty if there is none.

    Raises:
        ValueError: the data are damaged, or of a kind that is not supported.
        Image.DecompressionBombError: the image has more than `max_pixels`.
    """
    segments = list(_segments(content))
    frame = next((segment.payload for segment in segments if segment.code in _FRAMES), b"")
    if any(segment.code in _OTHER_FRAMES for segment in segments) or len(frame) < 6:
        raise ValueError("only baseline and progressive JPEG data are supported")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if height * width > max_pixels:
        raise Image.DecompressionBombError
    if any(segment.code in _PROGRESSIVE for segment in segments) and not _has_all_coefficients(
        segments, frame
    ):
        raise ValueError("scans are missing")
    components = frame[5]
    kept = [_rewritten(segment, components) for segment in segments if not _is_metadata(segment)]
    if _is_sampling_known(frame):
        has_restarts = any(segment.code == _DRI for segment in kept)
        pixels = _decode_strictly(_scans(kept), components, has_restarts=has_restarts)
    else:
        joined = _SOI + b"".join(map(bytes, kept)) + _EOI
        with Image.open(io.BytesIO(joined), formats=("JPEG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
    exif = next((s.payload for s in segments if s.code == _APP1 and s.payload.startswith(PREFIX)), b"")
    return pixels, exif_orientation(exif), _luminance_table(kept)


def _segments(content: bytes) -> Iterator[_Segment]:
    """Yield the complete segments; bytes between them are skipped, as libjpeg does with a warning."""
    at = len(_SOI)
    while (found := _NEXT_MARKER.search(content, at)) and found[1] != _EOI[1:]:
        code, start = found[1][0], found.end()
        at = start + max(int.from_bytes(content[start : start + 2], "big"), 2)
        if at > len(content):
            return
        if code == _SOS:
            end = _END_OF_SCAN.search(content, at)
            at = end.start() if end else len(content)
        yield _Segment(code, content[start:at])


def _is_metadata(segment: _Segment) -> bool:
    """Whether a segment does not influence the pixels. Only JFIF and Adobe segments tell the color space."""
    if segment.code == _APP0:
        return len(segment.data) < 16 or not segment.payload.startswith(b"JFIF\0")
    if segment.code == _APP14:
        return len(segment.data) < 14 or not segment.payload.startswith(b"Adobe")
    return _APP0 <= segment.code <= _APP15 or segment.code == _COM


def _rewritten(segment: _Segment, components: int) -> _Segment:
    """Return the segment with a JFIF version and a color transform that libjpeg does not warn about."""
    if segment.code == _APP0:
        return _Segment(_APP0, _JFIF)
    if segment.code == _APP14:
        transform = 0 if segment.payload[11] == 0 else 2 if components == 4 else 1
        return _Segment(_APP14, b"\0\x0eAdobe\0\x64\0\0\0\0" + bytes((transform,)))
    return segment


def _is_sampling_known(frame: bytes) -> bool:
    """Whether simplejpeg decodes this chroma subsampling; damage to other files is not detected."""
    sampling = frame[7::3][: frame[5]]
    if len(sampling) == 1:
        return True
    return (
        len(sampling) in (3, 4)
        and sampling[0] in _LUMA_SAMPLING
        and sampling[1:3] == b"\x11\x11"
        and sampling[3:] in (b"", sampling[:1])
    )


def _has_all_coefficients(segments: list[_Segment], frame: bytes) -> bool:
    """Whether the scans of a progressive file have all bits; libjpeg smooths the others."""
    missing = {(component, index) for component in frame[6::3][: frame[5]] for index in range(64)}
    for scan in (segment.payload for segment in segments if segment.code == _SOS):
        count = scan[0] if scan else 0
        first, last, bits = (*scan[1 + 2 * count : 4 + 2 * count], 0, 0, 0)[:3]
        if not bits & 15:
            missing -= {(scan[1 + 2 * i], k) for i in range(count) for k in range(first, last + 1)}
    return not missing


def _scans(segments: list[_Segment]) -> list[bytes]:
    """Join the segments into scans, each with the segments before it."""
    scans, waiting = [], b""
    for segment in segments:
        waiting += bytes(segment)
        if segment.code == _SOS:
            scans.append(waiting)
            waiting = b""
    return [*scans, waiting] if waiting else scans


def _decode_strictly(scans: list[bytes], components: int, *, has_restarts: bool) -> Images:
    """Decode; bytes between the end of a scan and the next marker are ignored, other warnings are errors."""
    scans = list(scans)

    def decode(count: int, *, strict: bool = True) -> Images:
        joined = _SOI + b"".join(scans[:count]) + _EOI
        decoded: Images = simplejpeg.decode_jpeg(joined, "CMYK" if components == 4 else "RGB", strict=strict)
        return decoded

    def fails(count: int) -> bool:
        try:
            decode(count)
        except ValueError:
            return True
        return False

    pixels: Images | None = None
    while pixels is None:
        try:
            pixels = decode(len(scans))
        except ValueError as error:
            extraneous = _EXTRANEOUS.search(str(error))
            if extraneous is None:
                raise
            if extraneous[2] == "d9" and not has_restarts:  # no other warning can follow
                pixels = decode(len(scans), strict=False)
            else:
                first = bisect_left(range(1, len(scans)), True, key=fails)
                scans[first] = scans[first][: -int(extraneous[1])]
    if components == 4:  # Adobe's CMYK is inverted
        height, width, _ = pixels.shape
        cmyk = Image.frombytes("CMYK", (width, height), pixels.tobytes(), "raw", "CMYK;I")
        return np.asarray(cmyk.convert("RGB"))
    return pixels


def _luminance_table(segments: list[_Segment]) -> tuple[int, ...]:
    tables: dict[int, tuple[int, ...]] = {}
    for segment in segments:
        rest = segment.payload if segment.code == _DQT else b""
        while rest:
            size = 2 if rest[0] >> 4 else 1
            values = rest[1 : 1 + 64 * size]
            tables[rest[0] & 15] = tuple(
                int.from_bytes(values[i : i + size], "big") for i in range(0, len(values), size)
            )
            rest = rest[1 + 64 * size :]
    return tables[min(tables)] if tables else ()
