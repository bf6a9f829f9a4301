"""Decoding tens of thousands of small images on all cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from platform.cores import usable_cores
from platform.data.dataset import Images
from platform.data.images.decode import decode_with_encoding, resize_image
from platform.errors import UserError

_CHUNK = 500


def decode_all(
    rows: Iterable[tuple[str, bytes | Path]],
    count: int,
    *,
    size: int,
    encodings: Counter[str],
    resize: bool = False,
) -> Images:
    """Decode `count` images into one table.

    Threads suffice: Pillow releases the interpreter's lock while it decodes.

    Args:
        rows: (name for messages, encoded bytes or path), in order.
        count: how many rows there must be.
        size: side of the images in pixels.
        encodings: counts the encodings met (see `decode.decode_with_encoding`).
        resize: resize images of other sizes; otherwise they are refused.

    Returns:
        uint8 [count, 3, size, size].

    Raises:
        UserError: an image cannot be decoded or has another size, or there are not `count` rows.
    """
    images: Images = np.empty((count, 3, size, size), np.uint8)

    def decode_chunk(start: int, chunk: list[tuple[str, bytes | Path]]) -> Counter[str]:
        met: Counter[str] = Counter()
        for index, (name, content) in enumerate(chunk, start):
            pixels, encoding = decode_with_encoding(content, name=name)
            met[encoding] += 1
            if resize:
                pixels = resize_image(pixels, size)
            elif pixels.shape != (size, size, 3):
                height, width, _ = pixels.shape
                raise UserError(f"{name}: an image must have {size}x{size} pixels, it has {width}x{height}")
            images[index] = pixels.transpose(2, 0, 1)
        return met

    met_by_chunk = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            met_by_chunk = list(pool.map(lambda job: decode_chunk(*job), _chunks(rows, count)))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one error is enough: do not decode the rest first
            raise
    encodings.update(sum(met_by_chunk, Counter()))
    return images


def lossy_suffix(encodings: Counter[str]) -> str:
    """Return what a data label must add: `-jpeg75` for example, nothing when no image lost anything."""
    lossy = sorted(set(encodings) - {"lossless"})
    return f"-{'-'.join(lossy)}" if lossy else ""


def _chunks(
    rows: Iterable[tuple[str, bytes | Path]], count: int
) -> Iterator[tuple[int, list[tuple[str, bytes | Path]]]]:
    iterator = iter(rows)
    start = 0
    while chunk := list(islice(iterator, _CHUNK)):
        if start + len(chunk) <= count:
            yield start, chunk
        start += len(chunk)
    if start != count:
        raise UserError(f"{count} images were announced, {start} found: a file is damaged; replace it")
