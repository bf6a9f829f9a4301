"""Decode tens of thousands of small images on all cores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.data.dataset import Images
from platform.data.images.decode import decode_with_encoding, resize_image

_CHUNK = 500

Job = TypeVar("Job")
Result = TypeVar("Result")


def decode_all(
    rows: Iterable[tuple[str, bytes | Path]],
    count: int,
    *,
    size: int,
    encodings: Counter[str],
    resize: bool = False,
) -> Images:
    """Decode `count` images into uint8 [count, 3, size, size].

    Threads suffice: Pillow releases the GIL while it decodes.

    Args:
        rows: (name for messages, encoded bytes or path), in order.
        count: number of rows.
        size: side of the images in pixels.
        encodings: updated with the number of images per encoding (see `decode.decode_with_encoding`).
        resize: resize images of other sizes.

    Raises:
        UserError: an image cannot be decoded, or has another size without `resize`, or there are not `count`
            rows.
    """
    images: Images = np.empty((count, 3, size, size), np.uint8)

    def decode_chunk(start: int, chunk: list[tuple[str, bytes | Path]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for index, (name, content) in enumerate(chunk, start):
            pixels, encoding = decode_with_encoding(content, name=name)
            counts[encoding] += 1
            if resize:
                pixels = resize_image(pixels, size)
            elif pixels.shape != (size, size, 3):
                height, width, _ = pixels.shape
                raise UserError(f"{name}: the image must have {size}x{size} pixels, got {width}x{height}")
            images[index] = pixels.transpose(2, 0, 1)
        return counts

    counts_by_chunk = map_in_threads(lambda job: decode_chunk(*job), _chunks(rows, count))
    encodings.update(sum(counts_by_chunk, Counter()))
    return images


def map_in_threads(function: Callable[[Job], Result], jobs: Iterable[Job]) -> list[Result]:
    """Apply `function` to all jobs on all cores; the first error cancels the remaining jobs."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        try:
            return list(pool.map(function, jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def lossy_suffix(encodings: Counter[str]) -> str:
    """Return the dataset label's suffix for lossy encodings, such as `-jpeg75`; empty if all are lossless."""
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
        raise UserError(f"expected {count} images, got {start}: a file is damaged; replace it")
