"""Decoding and resizing in C++ compared with Pillow, under the sanitizers."""

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from platform.common.errors import UserError
from platform.data.images.decode import decode_image

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


def png16(color_type: int, channels: int) -> bytes:
    """Return a 16-bit PNG, which Pillow reads but does not write."""
    values = RNG.integers(0, 65536, (9, 13, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 13, 9, 16, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


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
        "png-16-gray": png16(0, 1),
        "png-16-rgb": png16(2, 3),
        "png-16-rgba": png16(6, 4),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"jpeg-exif-{orientation}"] = encode(rgb, "JPEG", quality=90, exif=exif)
        found[f"png-exif-{orientation}"] = encode(rgb, "PNG", exif=exif)
    return found


IMAGES = encoded_images()


def write_all(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


Tool = Callable[[list[Path], str], list[np.ndarray | str]]


@pytest.fixture
def tool(sanitized: Path, tmp_path: Path) -> Tool:
    """A function that decodes files in C++ to pixels [H, W, 3], or to the message of a rejected file."""

    def run(paths: list[Path], size: str = "-") -> list[np.ndarray | str]:
        out = tmp_path / "decoded"
        out.mkdir(exist_ok=True)
        command = [str(sanitized / "tests" / "image_tool"), str(out), size, *map(str, paths)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert answer.returncode == 0, answer.stderr[-4000:]
        lines = answer.stdout.splitlines()
        assert len(lines) == len(paths)
        return [
            np.asarray(Image.open(out / f"{i}.ppm")) if line == "ok" else line for i, line in enumerate(lines)
        ]

    return run


@pytest.fixture
def stb(sanitized: Path) -> bool:
    """Whether stb_image decodes, because this machine lacks the headers of libjpeg and libpng."""
    program = [str(sanitized / "resnet18"), "--version"]
    return "stb_image" in subprocess.run(program, capture_output=True, text=True, check=True).stdout


def test_pixels_equal_pillows(tool: Tool, tmp_path: Path, stb: bool) -> None:
    decoded = tool(write_all(tmp_path, IMAGES), "-")
    differing = {}
    for (name, content), got in zip(IMAGES.items(), decoded, strict=True):
        expected = decode_image(content)
        if isinstance(got, str) or got.shape != expected.shape:
            differing[name] = got if isinstance(got, str) else f"{got.shape} for {expected.shape}"
        elif stb and name.startswith("jpeg") and np.abs(got.astype(int) - expected).mean() < 4:
            continue  # different inverse transform and chroma upsampling
        elif not np.array_equal(got, expected):
            differing[name] = f"differs by up to {np.abs(got.astype(int) - expected).max()}"
    assert differing == {}


@pytest.mark.parametrize("size", [(32, 32), (8, 60), (100, 90), (61, 13), (1, 1), (200, 47)])
def test_resizing_equals_pillows(tool: Tool, tmp_path: Path, size: tuple[int, int]) -> None:
    paths = write_all(
        tmp_path, {"a.png": IMAGES["png-rgb"], "b.png": encode(Image.fromarray(smooth(37, 251)), "PNG")}
    )
    for path, got in zip(paths, tool(paths, f"{size[0]}x{size[1]}"), strict=True):
        expected = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BILINEAR))
        assert isinstance(got, np.ndarray), got
        assert np.abs(got.astype(int) - expected).max() <= 1


def test_damaged_images_are_rejected(tool: Tool, tmp_path: Path, stb: bool) -> None:
    jpeg, png = IMAGES["jpeg-420"], IMAGES["png-rgb"]
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 4
    bomb = png[:16] + struct.pack(">II", 60000, 60000) + png[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + png[33:]
    contents = {
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "no-end.png": png[:-12],
        "flipped.png": bytes(flipped),
        "bomb.png": bomb,
        "empty.png": b"",
        "text.jpg": b"these are not the pixels\n",
        "other.png": b"GIF89a" + bytes(100),
    }
    answers = dict(zip(contents, tool(write_all(tmp_path, contents), "-"), strict=True))
    words = ["damaged", "damaged", "damaged", "damaged", "60000 x 60000", "empty", "text file", "neither"]
    for (name, answer), word in zip(answers.items(), words, strict=True):
        assert isinstance(answer, str), f"{name} was decoded"
        assert answer.startswith("image_invalid"), name
        assert word in answer or (stb and "damaged" in answer)


def test_randomly_damaged_images_never_crash(tool: Tool, tmp_path: Path) -> None:
    contents = {}
    sources = list(IMAGES.values())
    for number in range(250):
        data = bytearray(sources[number % len(sources)])
        for _ in range(int(RNG.integers(1, 6))):
            data[int(RNG.integers(2, len(data)))] = int(RNG.integers(0, 256))
        if number % 5 == 0:
            del data[int(RNG.integers(2, len(data))) :]
        contents[f"{number}.bin"] = bytes(data)
    answers = tool(write_all(tmp_path, contents), "-")
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(refused) > 50
    assert all("image_invalid" in answer for answer in refused)


def test_text_file_is_rejected_in_python_too(tmp_path: Path) -> None:
    path = tmp_path / "text.png"
    path.write_text("hello\n")
    with pytest.raises(UserError, match="looks like a text file"):
        decode_image(path)
