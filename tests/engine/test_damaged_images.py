"""Damaged images: the verdict and the pixels of C++ and Python are the same (rules: docs/engine.md)."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from platform.common.errors import UserError
from platform.data.images.decode import decode_image

from .conftest import Tool, write_all
from .example_images import IMAGES, PNG_SIGNATURE, chunk, encode, png, smooth

JPEG, PROGRESSIVE, RESTART, PNG = (
    IMAGES[name] for name in ("jpeg-420", "jpeg-progressive", "jpeg-restart", "png-rgb")
)
JFIF = JPEG.index(b"JFIF\0") + 5


@pytest.fixture
def both(tool: Tool, tmp_path: Path) -> Callable[[dict[str, bytes]], dict[str, np.ndarray | None]]:
    """A function that decodes files on both sides and returns the common result; None for a rejected file."""

    def run(contents: dict[str, bytes]) -> dict[str, np.ndarray | None]:
        found, differing = {}, {}
        answers = tool(write_all(tmp_path, contents), "-")
        for (name, content), got in zip(contents.items(), answers, strict=True):
            try:
                expected, reason = decode_image(content), ""
            except UserError as error:
                expected, reason = None, str(error)
            found[name] = expected
            if isinstance(got, str):
                assert got.startswith("image_invalid"), got
            if isinstance(got, str) != (expected is None):
                differing[name] = f"C++: {got if isinstance(got, str) else 'ok'}; Python: {reason or 'ok'}"
            elif expected is not None and not np.array_equal(got, expected):
                differing[name] = "the pixels differ"
        assert differing == {}
        return found

    return run


Both = Callable[[dict[str, bytes]], dict[str, np.ndarray | None]]


@pytest.fixture(autouse=True)
def _libraries(stb: bool) -> None:
    if stb:
        pytest.skip("stb_image does not report damage; install the headers of libjpeg and libpng")


def markers(jpeg: bytes) -> Iterator[int]:
    """Yield the positions of all markers with a segment, and of the end of the image."""
    at = 2
    while True:
        yield at
        if jpeg[at + 1] == 0xD9:
            return
        is_scan = jpeg[at + 1] == 0xDA
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        while is_scan and (jpeg[at] != 0xFF or jpeg[at + 1] == 0 or 0xD0 <= jpeg[at + 1] <= 0xD7):
            at += 1


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with the right checksums of all complete chunks."""
    fixed, at = bytearray(content), 8
    while at + 12 <= len(fixed):
        end = at + 8 + int.from_bytes(fixed[at : at + 4], "big")
        if end + 4 > len(fixed):
            break
        fixed[end : end + 4] = struct.pack(">I", zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def mutated(content: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Return the content with some bytes changed, inserted or removed, or without its end."""
    data = bytearray(content)
    kind = number % 6
    for _ in range(int(rng.integers(1, 4)) if kind == 3 else 1):
        at = int(rng.integers(2, len(data)))
        if kind in (0, 1, 3):
            data[at] = int(rng.integers(0, 256))
        elif kind == 2:
            data[at:at] = rng.bytes(int(rng.integers(1, 6)))
        elif kind == 4:
            del data[at : at + int(rng.integers(1, 8))]
        else:
            del data[at:]
    is_png = content.startswith(PNG_SIGNATURE)
    return with_checksums(bytes(data)) if is_png and rng.random() < 0.5 else bytes(data)


def test_the_verdict_and_the_pixels_of_mutated_images_are_the_same(both: Both) -> None:
    rng = np.random.default_rng(17)
    names = [name for name in IMAGES if "exif" not in name] * 26
    contents = {
        f"{number}-{name}": mutated(IMAGES[name], number, rng) for number, name in enumerate(names[:1500])
    }
    assert len(contents) >= 1000
    found = both(contents)
    assert 300 < sum(pixels is None for pixels in found.values()) < 1300


def benign() -> dict[str, tuple[bytes, bytes]]:
    """Return intact files with an oddity that viewers ignore, and without it."""
    found = {}
    for name in ("jpeg-420", "jpeg-progressive", "jpeg-cmyk", "jpeg-gray"):
        content = IMAGES[name]
        for number, at in enumerate(list(markers(content))[1:]):
            for junk in (b"\x12", b"\0\x01\xff\0\x34" * 40, b"\xff\xff"):
                odd = content[:at] + junk + content[at:]
                found[f"{name}-{number}-{len(junk)}-{junk[0]}"] = (odd, content)
        found[f"{name}-no-end"] = (content[:-2], content)
        found[f"{name}-more"] = (content + b"more\xff\xd8\xff", content)
    for version in ((2, 1), (0, 0), (9, 255)):
        content = JPEG[:JFIF] + bytes(version) + JPEG[JFIF + 2 :]
        found[f"jfif-{version[0]}"] = (content, JPEG)
    adobe = bytearray(IMAGES["jpeg-cmyk"])
    adobe[adobe.index(b"Adobe") + 11] = 9
    reference = bytearray(adobe)
    reference[adobe.index(b"Adobe") + 11] = 2
    found["adobe-transform"] = (bytes(adobe), bytes(reference))
    text = chunk(b"tEXt", b"Comment\0" + bytes(50))
    body = PNG[33:]
    found |= {
        "png-no-end": (PNG[:-12], PNG),
        "png-cut-end": (PNG[:-5], PNG),
        "png-more": (PNG + b"more", PNG),
        "png-cut-checksum": (PNG[:-14], PNG),
        "png-text-checksum": (PNG[:33] + text[:-1] + b"!" + body, PNG),
        "png-long-text": (PNG[:33] + chunk(b"tEXt", b"Comment\0" + b"a" * 3_000_000) + body, PNG),
        "png-profile": (PNG[:33] + chunk(b"iCCP", b"nonsense") + chunk(b"gAMA", bytes(3)) + body, PNG),
        "png-palette-unused": (PNG[:33] + chunk(b"PLTE", bytes(5)) + body, PNG),
        "png-transparency-invalid": (PNG[:33] + chunk(b"tRNS", bytes(5)) + body, PNG),
    }
    return found


def test_benign_oddities_do_not_change_the_pixels(both: Both) -> None:
    files = benign()
    found = both({name: odd for name, (odd, _) in files.items()})
    wrong = [
        name
        for name, (_, plain) in files.items()
        if found[name] is None or not np.array_equal(found[name], decode_image(plain))
    ]
    assert wrong == []


def damaged() -> dict[str, bytes]:
    scan = JPEG.index(b"\xff\xda") + 14
    scans = [at for at in markers(PROGRESSIVE) if PROGRESSIVE[at + 1] == 0xDA]
    restart = RESTART.index(b"\xff\xd2")
    pixels = PNG.index(b"IDAT") + 4
    flipped = bytearray(PNG)
    flipped[len(PNG) // 2] ^= 4
    adler = bytearray(PNG)
    adler[-17] ^= 1
    bomb = PNG[:16] + struct.pack(">II", 60000, 60000) + PNG[24:]
    return {
        "jpeg-half": JPEG[: len(JPEG) // 2],
        "jpeg-half-with-end": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
        "jpeg-gap": JPEG[: scan + 100] + JPEG[scan + 700 :],
        "jpeg-no-scan": JPEG[:scan],
        "jpeg-invalid-codes": JPEG[: scan + 40] + b"\xff\0" * 200 + JPEG[scan + 440 :],
        "jpeg-first-scan": PROGRESSIVE[: scans[1]],
        "jpeg-without-last-scan": PROGRESSIVE[: scans[-1]] + b"\xff\xd9",
        "jpeg-restart": RESTART[:restart] + RESTART[restart + 40 :],
        "jpeg-lossless": JPEG.replace(b"\xff\xc0", b"\xff\xc3"),
        "jpeg-start": JPEG[:4],
        "png-half": PNG[: len(PNG) // 2],
        "png-flipped": bytes(flipped),
        "png-flipped-checksum": with_checksums(bytes(flipped)),
        "png-adler": with_checksums(bytes(adler)),
        "png-short": png(2, 8, size=(10, 2), rows=bytes(31)),
        "png-filter": png(2, 8, size=(10, 1), rows=b"\x5d" + bytes(30)),
        "png-critical": PNG[:33] + chunk(b"CgBI", bytes(4)) + PNG[33:],
        "png-header": with_checksums(PNG[:24] + b"\x03" + PNG[25:]),
        "png-no-palette": png(3, 8),
        "png-no-pixels": PNG[: pixels - 8] + PNG[-12:],
        "png-bomb": with_checksums(bomb),
        "empty": b"",
        "text": b"these are not the pixels\n",
        "png-signature": PNG_SIGNATURE,
    }


def test_damaged_files_are_rejected(both: Both) -> None:
    assert [name for name, pixels in both(damaged()).items() if pixels is not None] == []


def exif(orientation: int, *, kind: int, big: bool) -> bytes:
    """Return EXIF data with an orientation of type BYTE (1), SHORT (3) or LONG (4)."""
    order = ">" if big else "<"
    value = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], orientation).ljust(4, b"\0")
    other = struct.pack(order + "HHI4s", 0x0100, 3, 1, bytes(4))
    entry = struct.pack(order + "HHI4s", 0x0112, kind, 1, value)
    start = b"MM\0*" if big else b"II*\0"
    return start + struct.pack(order + "IH", 8, 2) + other + entry + bytes(4)


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='3' tiff:Orientation=\"3\"/>"


def segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def test_the_orientation_is_that_of_exif_data_of_every_form(both: Both) -> None:
    contents, expected = {}, {}
    plain = Image.fromarray(smooth(20, 11))
    jpeg, png_file = encode(plain, "JPEG", quality=95), encode(plain, "PNG")
    for number in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = number
        oriented = [
            np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encode(image, "PNG", exif=tags)))))
            for image in (Image.open(io.BytesIO(jpeg)), plain)
        ]
        for kind in (1, 3, 4):
            for big in (False, True):
                data = exif(number, kind=kind, big=big)
                name = f"{number}-{kind}-{big}"
                parts = (segment(b"Exif\0\0" + data), segment(XMP))
                for order, segments in enumerate((parts[:1], parts, parts[::-1])):
                    contents[f"jpeg-{name}-{order}"] = jpeg[:2] + b"".join(segments) + jpeg[2:]
                    expected[f"jpeg-{name}-{order}"] = oriented[0]
                chunks = {
                    "bare": png_file[:33] + chunk(b"eXIf", data) + png_file[33:],
                    "prefix": png_file[:33] + chunk(b"eXIf", b"Exif\0\0" + data) + png_file[33:],
                    "late": png_file[:-12] + chunk(b"eXIf", data) + png_file[-12:],
                }
                contents |= {f"png-{name}-{key}": content for key, content in chunks.items()}
                expected |= {f"png-{name}-{key}": oriented[1] for key in chunks}
    for name, odd in {
        "only-xmp": segment(XMP),
        "nine": segment(b"Exif\0\0" + exif(9, kind=3, big=False)),
        "cut": segment(b"Exif\0\0" + exif(6, kind=3, big=False)[:30]),
        "nonsense": segment(b"Exif\0\0nonsense"),
    }.items():
        contents[name], expected[name] = jpeg[:2] + odd + jpeg[2:], decode_image(jpeg)
    found = both(contents)
    assert [name for name in contents if not np.array_equal(found[name], expected[name])] == []


def test_the_transparent_color_of_16_bit_images_is_compared_in_full(both: Both) -> None:
    found = both({name: IMAGES[name] for name in ("png-16-bit-key", "png-16-bit-gray-key")})
    np.testing.assert_array_equal(found["png-16-bit-key"], [[[255, 255, 255], [1, 1, 1]]])
    np.testing.assert_array_equal(found["png-16-bit-gray-key"], [[[255, 255, 255], [1, 1, 1]]])


@pytest.mark.parametrize("sampling", [(0x42, 0x11, 0x11), (0x21, 0x21, 0x21), (0x22, 0x21, 0x11)])
def test_rare_chroma_subsampling_is_decoded(both: Both, sampling: tuple[int, int, int]) -> None:
    """The scan has too few blocks for these factors, which is not detected for them."""
    content = bytearray(IMAGES["jpeg-444"])
    frame = content.index(b"\xff\xc0")
    for component, factors in enumerate(sampling):
        content[frame + 11 + 3 * component] = factors
    assert both({"a": bytes(content)})["a"] is not None
