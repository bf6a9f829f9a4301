"""Write int8 weights in the format of ncnn's `ncnn2int8` tool, which its packages do not contain.

A quantized layer computes with int8 inputs and weights: one scale for its input, one per output channel for
its weights. If the only reader of a convolution's output is a quantized convolution, that output is int8.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.param_file import Layer, ParamFile
from deploy.conversion.weights_file import TAG_INT8, LayerWeights, float_layer, has_weights, padded
from deploy.quantization.activation_scales import scale

SCALE_TERM = 8
"""Key of an int8 layer: 2 for float output, 102 for int8 output."""
FLOAT_OUTPUT, INT8_OUTPUT = 2, 102


def weight_scales(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 127 / largest magnitude for each row of [outputs, inputs]; 1 for a row of zeros."""
    return np.array([scale(float(row.max())) for row in np.abs(weights)], np.float32)


def quantize(values: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Return `values` [outputs, inputs] times `scales` [outputs], rounded half away from zero as in ncnn."""
    scaled = values * scales[:, None]
    rounded = np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))
    result: NDArray[np.int8] = np.clip(rounded, -127, 127).astype(np.int8)
    return result


def write_int8(
    param: ParamFile, weights: Mapping[str, LayerWeights], input_scales: Mapping[str, float]
) -> tuple[ParamFile, bytes]:
    """Return the `.param` and the content of the `.bin` file of the quantized network.

    Args:
        param: the fp32 network.
        weights: its weights by layer name.
        input_scales: 127 / input magnitude, by name, of the layers to quantize; other layers stay fp32.
    """
    readers = {layer.inputs[0]: layer for layer in param.layers if layer.type == "Convolution"}
    layers: list[Layer] = []
    content: list[bytes] = []
    for layer in param.layers:
        if not has_weights(layer):
            layers.append(layer)
        elif layer.name not in input_scales:
            layers.append(layer)
            content.append(float_layer(layer.name, weights[layer.name], "fp32"))
        else:
            reader = readers.get(layer.outputs[0]) if layer.type == "Convolution" else None
            output_scale = input_scales.get(reader.name) if reader else None
            layers.append(layer.with_value(SCALE_TERM, FLOAT_OUTPUT if output_scale is None else INT8_OUTPUT))
            content.append(_int8_layer(weights[layer.name], input_scales[layer.name], output_scale))
    return ParamFile(param.blobs, tuple(layers)), b"".join(content)


def _int8_layer(layer: LayerWeights, input_scale: float, output_scale: float | None) -> bytes:
    scales = weight_scales(layer.weights)
    parts = [
        struct.pack("<I", TAG_INT8),
        padded(quantize(layer.weights, scales).tobytes()),
        b"" if layer.bias is None else layer.bias.tobytes(),
        scales.tobytes(),
        struct.pack("<f", input_scale),
        b"" if output_scale is None else struct.pack("<f", output_scale),
    ]
    return b"".join(parts)
