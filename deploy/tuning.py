"""Which convolutions ncnn may compute by Winograd's transform: a rule written into the `.param` file.

pnnx leaves the images' sizes out, so ncnn transforms the weights of every 3x3 convolution. For many channels
and a small image that costs more than it saves: the weights of ResNet-18 grow from 45 to 151 MB, and reading
them dominates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from deploy.ncnn_net import EXACT, extract, load_net
from deploy.param_file import FEATURE_MASK, NO_WINOGRAD, WEIGHT_COUNT, Layer, ParamFile, parse

SMALL_WIDTH = 16
"""Output width in pixels below which each transformed weight is used too few times to pay for its reading."""
MANY_WEIGHTS = 65_536
"""Weights of a layer above which their transform, four times as large, is more than 1 MB: a core's cache."""


def tune(param_text: str, weights: Path, *, input_shape: tuple[int, int, int]) -> tuple[str, tuple[str, ...]]:
    """Switch Winograd's transform off where it costs more than it saves: many weights, small output.

    Measured on a Zen 5 core, fp32, batch 1, CPU time: ResNet-18 at 0.67 of the time it takes as exported;
    ResNet-32, whose weights stay in the cache, would take 1.3 times as long and is left alone.

    Args:
        param_text: an ncnn `.param` that fits `weights`.
        weights: the `.bin` file.
        input_shape: channels, height, width of the input.

    Returns:
        the edited text, and the names of the layers it changed.
    """
    param = parse(param_text)
    widths = output_widths(param, weights, input_shape=input_shape)
    chosen = {
        layer.name
        for layer in param.layers
        if is_3x3_stride_1(layer)
        and widths[layer.outputs[0]] < SMALL_WIDTH
        and layer.value(WEIGHT_COUNT) > MANY_WEIGHTS
    }
    return without_winograd(param, chosen).text(), tuple(
        layer.name for layer in param.layers if layer.name in chosen
    )


def without_winograd(param: ParamFile, names: Collection[str]) -> ParamFile:
    """Return `param` with the transform switched off for the layers named."""
    layers = tuple(
        layer.with_value(FEATURE_MASK, layer.value(FEATURE_MASK) | NO_WINOGRAD)
        if layer.name in names
        else layer
        for layer in param.layers
    )
    return ParamFile(param.blobs, layers)


def output_widths(param: ParamFile, weights: Path, *, input_shape: tuple[int, int, int]) -> Mapping[str, int]:
    """Return the width in pixels of every convolution's output blob, as ncnn computes it."""
    blobs = [layer.outputs[0] for layer in param.layers if layer.type == "Convolution"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.param")
        file.write_text(param.text(), encoding="utf-8")
        # Light mode frees a blob once it is used; packing would lay several channels into one.
        net = load_net(file, weights, {**EXACT, "lightmode": False, "use_packing_layout": False})
        outputs = extract(net, np.zeros(input_shape, np.float32), blobs)
        return {blob: output.shape[-1] for blob, output in zip(blobs, outputs, strict=True)}


def is_3x3_stride_1(layer: Layer) -> bool:
    """Return whether ncnn may compute `layer` by Winograd's transform."""

    # Keys of ncnn's Convolution: 1 and 11 kernel, 2 and 12 dilation, 3 and 13 stride (width, height); the
    # second of a pair is the first where it is not given.
    def pair(key: int, default: int) -> tuple[int, int]:
        first = layer.value(key, default)
        return first, layer.value(key + 10, first)

    return (
        layer.type == "Convolution" and pair(1, 0) == (3, 3) and pair(2, 1) == (1, 1) and pair(3, 1) == (1, 1)
    )
