"""Encoded images of every kind, and the parts to build others from."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

RNG = np.random.default_rng(11)


def smooth(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Return an image with gradients, edges and noise, uint8 [H, W, C]."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(3 * x + 5 * y * (c + 1) + 60 * ((x // 9 + y // 7) % 2)) % 256 for c in range(channels)]
    noise = RNG.normal(0, 6, (height, width, channels))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    color: int,
    depth: int,
    *,
    size: tuple[int, int] = (13, 9),
    interlaced: bool = False,
    before: bytes = b"",
    rows: bytes | None = None,
    levels: int = 1 << 16,
) -> bytes:
    """Return a PNG of a kind that Pillow reads but does not write.

    Args:
        color: the color type.
        depth: bits per channel.
        size: width and height.
        interlaced: whether the seven passes of Adam7 are used.
        before: the chunks before the pixels.
        rows: the filtered rows; default: random pixels.
        levels: the number of different levels.
    """
    width, height = size
    shape = (height, width, CHANNELS[color])
    pixels = RNG.integers(0, min(levels, 1 << depth), shape).astype(np.uint16)
    if rows is None:
        parts = [pixels[y::dy, x::dx] for x, y, dx, dy in PASSES] if interlaced else [pixels]
        rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, depth))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return PNG_SIGNATURE + chunk(b"IHDR", header) + before + end


def packed(pixels: np.ndarray, depth: int) -> Iterator[bytes]:
    """Yield the bytes of each row of [H, W, C]."""
    for row in pixels.reshape(len(pixels), -1):
        if depth == 16:
            yield row.astype(">u2").tobytes()
        else:
            bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
            yield np.packbits(bits.reshape(-1)).tobytes()


def encoded_images() -> dict[str, bytes]:
    rgb = Image.fromarray(smooth(61, 47))
    rgba = Image.fromarray(smooth(30, 20, 4), "RGBA")
    palette = rgb.quantize(40)
    found = {
        "jpeg-420": encode(rgb, "JPEG", quality=80, subsampling=2),
        "jpeg-422": encode(rgb, "JPEG", quality=60, subsampling=1),
        "jpeg-444": encode(rgb, "JPEG", quality=95, subsampling=0),
        "jpeg-progressive": encode(rgb, "JPEG", quality=75, progressive=True),
        "jpeg-gray": encode(rgb.convert("L"), "JPEG", quality=75),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG", quality=90),
        "png-rgb": encode(rgb, "PNG"),
        "png-rgba": encode(rgba, "PNG"),
        "png-gray": encode(rgb.convert("L"), "PNG"),
        "png-gray-alpha": encode(rgba.convert("LA"), "PNG"),
        "png-bits": encode(rgb.convert("1"), "PNG"),
        "png-palette": encode(palette, "PNG"),
        "png-palette-small": encode(rgb.quantize(4), "PNG", bits=2),
        "png-palette-transparent": encode(palette, "PNG", transparency=bytes(range(0, 200, 5))),
        "png-gray-transparent": encode(rgb.convert("L"), "PNG", transparency=100),
        "jpeg-restart": encode(rgb, "JPEG", quality=80, restart_marker_blocks=3),
        "jpeg-progressive-cmyk": encode(rgb.convert("CMYK"), "JPEG", quality=80, progressive=True),
    }
    for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            palette = chunk(b"PLTE", RNG.bytes(3 * min(1 << depth, 200))) if color == 3 else b""
            for interlaced in (False, True):
                kind = f"png-{color}-{depth}-{'interlaced' if interlaced else 'plain'}"
                found[kind] = png(color, depth, interlaced=interlaced, before=palette)
                if color in (0, 2):  # few levels, so that some pixels are transparent
                    key = chunk(b"tRNS", bytes((0x80, 1)) * CHANNELS[color])
                    found[f"{kind}-key"] = png(color, depth, interlaced=interlaced, before=key, levels=2)
    for size in ((1, 1), (2, 3), (5, 1), (1, 6)):
        found[f"png-{size[0]}x{size[1]}"] = png(2, 8, size=size, interlaced=True)
    key = chunk(b"tRNS", struct.pack(">HHH", 500, 501, 502))
    row = struct.pack(">6H", 500, 501, 502, 500, 501, 503)  # equal high bytes
    found["png-16-bit-key"] = png(2, 16, size=(2, 1), before=key, rows=b"\0" + row)
    key = chunk(b"tRNS", struct.pack(">H", 500))
    found["png-16-bit-gray-key"] = png(
        0, 16, size=(2, 1), before=key, rows=b"\0" + struct.pack(">2H", 500, 501)
    )
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"jpeg-exif-{orientation}"] = encode(rgb, "JPEG", quality=90, exif=exif)
        found[f"png-exif-{orientation}"] = encode(rgb, "PNG", exif=exif)
    return found


IMAGES = encoded_images()
