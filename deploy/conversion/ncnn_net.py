"""Run ncnn networks through its Python package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from platform.common.cores import usable_cores
from platform.common.errors import UserError

Result = TypeVar("Result")

INPUT_BLOB = "in0"
OUTPUT_BLOB = "out0"

EXACT: Mapping[str, bool] = {
    "use_fp16_packed": False,
    "use_fp16_storage": False,
    "use_fp16_arithmetic": False,
}
"""Options of plain fp32. By default ncnn stores the classifier's weights in fp16 on x86, an error of 1e-4."""
BF16: Mapping[str, bool] = {**EXACT, "use_bf16_packed": True, "use_bf16_storage": True}
"""Options of bf16: weights and activations in 16 bits, accumulation in fp32."""

READABLE: Mapping[str, bool] = {**EXACT, "lightmode": False, "use_packing_layout": False}
"""Options under which every blob can be read: no early release, no packing of channels."""


def options_for(precision: str) -> Mapping[str, bool]:
    """Return the options that the C++ engine uses for this precision."""
    return BF16 if precision == "bf16" else EXACT


def load_net(param: Path, weights: Path, options: Mapping[str, bool] = EXACT) -> Any:
    """Return an `ncnn.Net`, ready to run with one thread.

    ncnn does not validate its files and can crash on inconsistent ones: pass only files that this program
    wrote, or whose hashes were checked.

    Raises:
        UserError: ncnn rejects the files.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for name, value in options.items():
        setattr(net.opt, name, value)
    if net.load_param(str(param)) != 0:
        raise UserError(f"ncnn rejects {param.name}: see its message above")
    if net.load_model(str(weights)) != 0:
        raise UserError(f"ncnn rejects {weights.name}: it does not match {param.name}")
    return net


def run(
    net: Any, inputs: NDArray[np.float32], *, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.float32]:
    """Return the logits [N, classes] of normalized images [N, C, H, W], computed on all usable cores.

    `progress` is called with the number of images done.
    """
    logits = []
    for row in map_images(partial(infer, net), inputs):
        logits.append(row)
        progress(len(logits))
    return np.stack(logits)


def map_images(
    function: Callable[[NDArray[np.float32]], Result], inputs: NDArray[np.float32]
) -> Iterator[Result]:
    """Yield the results of `function` for each image, in order, from one thread per usable core.

    ncnn releases Python's lock during an inference. Its own threads are no alternative: they wait for each
    other in a loop, so on a busy machine an inference with two threads takes seven times as long.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        yield from pool.map(function, inputs)


def infer(net: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits [classes] of one normalized image [C, H, W]."""
    return next(extract(net, image, [OUTPUT_BLOB]))


def extract(net: Any, image: NDArray[np.float32], blobs: list[str]) -> Iterator[NDArray[np.float32]]:
    """Yield the named blobs for one normalized image [C, H, W], in the given order."""
    import ncnn

    # One extractor per image, since it caches its results. The clone: a Mat made from an array borrows its
    # memory without keeping the array alive.
    extractor = net.create_extractor()
    contiguous = np.ascontiguousarray(image)
    extractor.input(INPUT_BLOB, ncnn.Mat(contiguous).clone())
    for blob in blobs:
        code, output = extractor.extract(blob)
        if code != 0:
            raise UserError(f"ncnn could not compute blob {blob!r} (code {code})")
        yield np.array(output)
