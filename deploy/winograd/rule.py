"""Choose the convolutions that use Winograd's transform by rule, and edit the `.param` file accordingly.

pnnx omits the image sizes, so ncnn transforms the weights of every 3x3 convolution. For many channels and a
small image that costs more than it saves: the weights of ResNet-18 grow from 45 to 151 MB, and reading them
dominates. `deploy.winograd.measured_choice` replaces the rule by a measurement on this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from deploy.conversion.ncnn_net import READABLE, extract, load_net
from deploy.conversion.param_file import (
    FEATURE_MASK,
    NO_WINOGRAD,
    SHAPE_HINTS,
    WEIGHT_COUNT,
    Layer,
    ParamFile,
    parse,
)
from deploy.model_files.model_folder import ModelPrecision

SMALL_WIDTH = 16
"""Output width in pixels below which a transformed weight is reused too rarely to amortize its loading."""
MANY_WEIGHTS = 65_536
"""Weights of a layer above which the transformed ones, four times as large, exceed 1 MB, a core's cache."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each blob by name: channels, height, width, or the length of a vector."""


def tune_by_rule(
    param_text: str,
    weights: Path,
    *,
    input_shape: tuple[int, int, int],
    precision: ModelPrecision = "fp32",
) -> tuple[str, tuple[str, ...]]:
    """Switch Winograd's transform off where it costs more than it saves, and add shape hints.

    In fp32, and in fp16, which computes in fp32, it is off for layers with many weights and a small output;
    in bf16, where direct convolution is faster, for layers with many weights; in int8 for all layers.
    Measured on a loaded Zen 5 core, batch 1, CPU time relative to the fp32 net as exported: ResNet-18 fp32
    0.72, bf16 0.52 (0.92 with the transform everywhere), int8 0.30 (0.85); ResNet-32 fp32 and bf16 unchanged
    (1.7 without the transform), int8 0.60 (0.76).

    Args:
        param_text: the ncnn `.param` file of `weights`.
        weights: the `.bin` file.
        input_shape: channels, height, width of the input.
        precision: the precision of the net.

    Returns:
        the edited text, and the names of the layers with the transform off.
    """
    param = parse(param_text)
    shapes = blob_shapes(param, weights, input_shape=input_shape)
    names = tuple(
        layer.name
        for layer in param.layers
        if is_3x3_stride_1(layer) and _costs_more(layer, shapes[layer.outputs[0]][-1], precision)
    )
    return with_shape_hints(without_winograd(param, names), shapes).text(), names


def _costs_more(layer: Layer, width: int, precision: ModelPrecision) -> bool:
    many = layer.value(WEIGHT_COUNT) > MANY_WEIGHTS
    match precision:
        case "fp32" | "fp16":
            return many and width < SMALL_WIDTH
        case "bf16":
            return many
        case "int8":
            return True


def without_winograd(param: ParamFile, names: Collection[str]) -> ParamFile:
    """Return `param` with the transform off for the layers named and on for the other 3x3 convolutions.

    Both settings are explicit, so that every program that loads the file runs the same kernels.
    """
    return ParamFile(param.blobs, tuple(_decided(layer, layer.name in names) for layer in param.layers))


def _decided(layer: Layer, off: bool) -> Layer:
    if not is_3x3_stride_1(layer):
        return layer
    mask = layer.value(FEATURE_MASK)
    return layer.with_value(FEATURE_MASK, mask | NO_WINOGRAD if off else mask & ~NO_WINOGRAD)


def with_shape_hints(param: ParamFile, shapes: Shapes) -> ParamFile:
    """Return `param` with the shape of every blob, by which ncnn chooses its kernels."""

    def hinted(layer: Layer) -> Layer:
        numbers: list[int] = []
        for blob in layer.outputs:
            width, height, channels = (*reversed(shapes[blob]), 1, 1)[:3]
            numbers += [len(shapes[blob]), width, height, channels]
        return layer.with_value(SHAPE_HINTS, ",".join(map(str, [len(numbers), *numbers])))

    return ParamFile(param.blobs, tuple(hinted(layer) for layer in param.layers))


def blob_shapes(param: ParamFile, weights: Path, *, input_shape: tuple[int, int, int]) -> Shapes:
    """Return the shape of every blob, computed by ncnn."""
    blobs = [blob for layer in param.layers for blob in layer.outputs]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.param")
        file.write_text(param.text(), encoding="utf-8")
        net = load_net(file, weights, READABLE)
        outputs = extract(net, np.zeros(input_shape, np.float32), blobs)
        return {blob: output.shape for blob, output in zip(blobs, outputs, strict=True)}


def is_3x3_stride_1(layer: Layer) -> bool:
    """Return whether ncnn may compute `layer` by Winograd's transform."""

    # Keys of ncnn's Convolution: 1 and 11 kernel, 2 and 12 dilation, 3 and 13 stride (width, height). The
    # height defaults to the width.
    def pair(key: int, default: int) -> tuple[int, int]:
        first = layer.value(key, default)
        return first, layer.value(key + 10, first)

    return (
        layer.type == "Convolution" and pair(1, 0) == (3, 3) and pair(2, 1) == (1, 1) and pair(3, 1) == (1, 1)
    )
