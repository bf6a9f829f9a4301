"""Image decoding: every supported format becomes RGB uint8, other files raise one error."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from platform.common.errors import UserError
from platform.data.images.decode import decode_image, decode_with_encoding, resize_image

RED, GREEN = (255, 0, 0), (0, 255, 0)


def saved(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_color_modes_keep_their_color(mode: str) -> None:
    image = Image.new("RGB", (5, 4), RED).convert(mode)
    pixels = decode_image(saved(image, "TIFF"))
    assert (pixels.shape, pixels.dtype) == ((4, 5, 3), np.uint8)
    np.testing.assert_allclose(pixels, np.full((4, 5, 3), RED), atol=2)


@pytest.mark.parametrize(
    ("mode", "value", "gray"),
    [("L", 100, 100), ("1", 1, 255), ("LA", (100, 255), 100), ("I;16", 100 * 256 + 7, 100)],
)
def test_gray_modes_become_gray(mode: str, value: object, gray: int) -> None:
    pixels = decode_image(saved(Image.new(mode, (5, 4), value)))
    np.testing.assert_array_equal(pixels, np.full((4, 5, 3), gray))


def test_transparent_pixels_become_white() -> None:
    pixels = decode_image(saved(Image.new("RGBA", (2, 2), (255, 0, 0, 0))))
    np.testing.assert_array_equal(pixels, np.full((2, 2, 3), 255))


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (16, 8), RED)
    image.paste(GREEN, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation 6: rotate clockwise by 90 degrees
    pixels = decode_image(saved(image, "JPEG", exif=exif, quality=100, subsampling=0))
    assert pixels.shape == (16, 8, 3)
    np.testing.assert_allclose(pixels[2, 4], GREEN, atol=3)
    np.testing.assert_allclose(pixels[13, 4], RED, atol=3)


def test_an_image_file_is_decoded_and_a_text_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(saved(Image.new("RGB", (3, 3), GREEN)))
    assert decode_image(file).shape == (3, 3, 3)
    file.write_text("this is no image\n")
    with pytest.raises(UserError, match=r"a\.png is not an image: it looks like a text file"):
        decode_image(file)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b\.png: no such file"):
        decode_image(tmp_path / "b.png")
    with pytest.raises(UserError, match="is a folder"):
        decode_image(tmp_path)


def test_fifos_devices_and_huge_files_are_refused_without_reading_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # sparse
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a regular file"):
            decode_image(path)
    with pytest.raises(UserError, match=r"at most 268,435,456 bytes, got 1,099,511,627,776"):
        decode_image(tmp_path / "huge.png")
    with pytest.raises(UserError, match="cannot read"):
        decode_image(Path("a\0.png"))


def test_large_texts_and_color_profiles_in_png_files_are_read() -> None:
    large = np.random.default_rng(0).bytes(3 * 2**20).hex()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Comment", large)
    texts.add_text("Compressed", large, zip=True)
    image = Image.new("RGB", (2, 2), GREEN)
    content = saved(image, pnginfo=texts, icc_profile=large.encode())
    assert (decode_image(content) == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500),
            "a photo or video of the type 'heic', such as HEIC",
        ),
        (bytes(600), "it starts with the bytes 00 00 00 00 00 00 00 00"),
        (("x" * 511 + "é").encode(), "it looks like a text file"),
        (b"", "the file is empty"),
    ],
)
def test_other_content_is_described(content: bytes, description: str) -> None:
    with pytest.raises(UserError, match=description):
        decode_image(content)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(file_format: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), file_format)
    with pytest.raises(UserError, match="photo"):
        decode_image(content[: int(len(content) * kept)], name="photo")


def test_jpeg_data_that_pillow_shows_as_gray_are_refused() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "JPEG", quality=90)
    cut = content[: len(content) // 2] + content[-2:]
    assert Image.open(io.BytesIO(cut)).convert("RGB").getpixel((63, 63)) == (128, 128, 128)
    with pytest.raises(UserError, match=r"photo is a truncated or damaged image .*premature end"):
        decode_image(cut, name="photo")


def test_png_data_with_a_wrong_checksum_or_missing_rows_are_refused() -> None:
    content = bytearray(saved(Image.new("RGB", (40, 40), RED)))
    pixels = content.index(b"IDAT") + 4
    content[-13] ^= 1
    with pytest.raises(UserError, match="IDAT has a wrong checksum"):
        decode_image(bytes(content))
    short = zlib.compress(bytes(121 * 39))
    chunk = b"IDAT" + short
    crc = zlib.crc32(chunk)
    content[pixels - 8 :] = struct.pack(">I", len(short)) + chunk + struct.pack(">I", crc) + content[-12:]
    with pytest.raises(UserError, match="the pixel data are incomplete"):
        decode_image(bytes(content))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_huge_images_are_refused_before_decoding(side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(UserError, match="89 megapixels"):
        decode_image(content, name="photo")


def test_postscript_is_not_executed() -> None:
    with pytest.raises(UserError, match="not an image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_estimated(quality: int) -> None:
    content = saved(Image.new("RGB", (8, 8), RED), "JPEG", quality=quality)
    assert decode_with_encoding(content)[1] == f"jpeg{quality}"


@pytest.mark.parametrize(
    ("file_format", "encoding"), [("PNG", "lossless"), ("BMP", "lossless"), ("WEBP", "webp")]
)
def test_other_encodings_are_reported(file_format: str, encoding: str) -> None:
    assert decode_with_encoding(saved(Image.new("RGB", (8, 8), RED), file_format))[1] == encoding


def test_shrinking_is_antialiased() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = 200
    inner = resize_image(image, 32)[1:-1]
    # The widened triangle filter weights rows 2k-1 to 2k+2 by 1/8, 3/8, 3/8, 1/8, which averages the stripes.
    np.testing.assert_array_equal(inner, np.full_like(inner, 100))


def test_enlarging_and_resizing_to_the_same_size() -> None:
    assert resize_image(np.zeros((7, 90, 3), np.uint8), 32).shape == (32, 32, 3)
    image = np.zeros((32, 32, 3), np.uint8)
    assert resize_image(image, 32) is image
