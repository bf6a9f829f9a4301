"""Read and write ncnn's `.bin` files: the weights of each layer in the order of the `.param` file.

A convolution or fully connected layer stores a four-byte tag, its weights (padded to four bytes), its bias in
fp32 and, in int8, its scales (ncnn `src/modelbin.cpp`, `src/layer/convolution.cpp`). No other layer of a
ResNet stores anything.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.param_file import Layer, ParamFile
from platform.common.errors import UserError

Storage = Literal["fp32", "fp16", "bf16"]

TAG_FP32 = 0
TAG_FP16 = 0x01306B47
TAG_BF16 = 0x01348B83
TAG_INT8 = 0x000D4B38

# (key of the number of weights, key of the bias flag) by layer type; the number of outputs is key 0.
_KEYS = {"Convolution": (6, 5), "InnerProduct": (2, 1)}


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The weights and bias of a layer."""

    weights: NDArray[np.float32]
    """[outputs, inputs * kernel area]."""
    bias: NDArray[np.float32] | None
    """[outputs]."""


def has_weights(layer: Layer) -> bool:
    """Return whether `layer` stores weights."""
    return layer.type in _KEYS


def read_weights(param: ParamFile, content: bytes) -> dict[str, LayerWeights]:
    """Return the weights of an fp32 `.bin` file by layer name.

    Raises:
        UserError: the file's size does not match `param`, or it is not in fp32.
    """
    offset = 0
    found = {}

    def floats(count: int) -> NDArray[np.float32]:
        nonlocal offset
        if offset + 4 * count > len(content):
            raise UserError("the weights do not match the .param file: the .bin file is too short")
        values = np.frombuffer(content, "<f4", count, offset)
        offset += 4 * count
        return values

    for layer in filter(has_weights, param.layers):
        count_key, bias_key = _KEYS[layer.type]
        outputs, count = layer.value(0), layer.value(count_key)
        (tag,) = floats(1).view("<u4")
        if tag != TAG_FP32 or outputs <= 0 or count % outputs:
            raise UserError(
                f"the weights do not match the .param file, or are not in fp32: layer {layer.name}"
            )
        weights = floats(count).reshape(outputs, -1)
        found[layer.name] = LayerWeights(weights, floats(outputs) if layer.value(bias_key) else None)
    if offset != len(content):
        raise UserError(
            f"the weights do not match the .param file: it describes {offset} bytes, there are {len(content)}"
        )
    return found


def write_weights(param: ParamFile, weights: Mapping[str, LayerWeights], storage: Storage) -> bytes:
    """Return the content of a `.bin` file; biases are always fp32.

    fp16 and bf16 halve the file. ncnn converts both back to fp32 when it loads them.

    Raises:
        UserError: a weight is too large for fp16.
    """
    return b"".join(
        float_layer(layer.name, weights[layer.name], storage) for layer in param.layers if has_weights(layer)
    )


def float_layer(name: str, layer: LayerWeights, storage: Storage) -> bytes:
    """Return one layer's bytes."""
    bias = b"" if layer.bias is None else layer.bias.tobytes()
    if storage == "fp32":
        return struct.pack("<I", TAG_FP32) + layer.weights.tobytes() + bias
    if storage == "bf16":
        return struct.pack("<I", TAG_BF16) + padded(_to_bf16(layer.weights).tobytes()) + bias
    with np.errstate(over="ignore"):
        halves = layer.weights.astype("<f2")
    if not np.isfinite(halves).all():
        raise UserError(
            f"layer {name} has weights beyond 65504, the largest number of fp16; use fp32 or bf16"
        )
    return struct.pack("<I", TAG_FP16) + padded(halves.tobytes()) + bias


def padded(content: bytes) -> bytes:
    """Return `content` filled with zeros to a multiple of four bytes."""
    return content + b"\0" * (-len(content) % 4)


def _to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to nearest, ties to even: the upper half of each fp32 pattern."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
