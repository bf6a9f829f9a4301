"""Convert a model folder's ncnn files to an ONNX model, layer by layer, with the same folded weights.

PyTorch's exporter would give another graph with differently folded normalization layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.param_file import Layer, parse
from deploy.conversion.weights_file import LayerWeights, read_weights
from deploy.model_files.model_folder import ModelFolder
from platform.common.errors import UserError

OPSET = 17
IR_VERSION = 9


def write_onnx(folder: ModelFolder, path: Path) -> None:
    """Write the network of an fp32 model folder to an ONNX file; input [1, C, H, W], output [1, classes].

    Raises:
        UserError: a layer is not supported.
    """
    import onnx
    from onnx import TensorProto, helper

    document = folder.document
    param = parse(folder.param.read_text(encoding="utf-8"))
    weights = read_weights(param, folder.weights.read_bytes())
    graph = _Graph()
    for layer in param.layers:
        if layer.type == "Input":
            continue
        if layer.type in _WEIGHTED:
            _WEIGHTED[layer.type](graph, layer, weights[layer.name])
        elif layer.type in _WRITERS:
            _WRITERS[layer.type](graph, layer)
        else:
            raise UserError(
                f"the comparison does not support layer type {layer.type} ({layer.name}) and cannot run this "
                "network in other runtimes"
            )
    image = document.input
    shape = [1, *image.shape]
    output = graph.name(document.output.blob)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            document.name,
            [helper.make_tensor_value_info(image.blob, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, len(document.output.classes)])],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


class _Graph:
    """Nodes and tensors of the ONNX graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._same: dict[str, str] = {}

    def name(self, blob: str) -> str:
        """Return the ONNX name of an ncnn blob; copies of a blob share a name."""
        return self._same.get(blob, blob)

    def same(self, blob: str, as_blob: str) -> None:
        self._same[blob] = self.name(as_blob)

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        names = [self.name(blob) for blob in inputs]
        self.nodes.append(helper.make_node(kind, names, [output], name=f"{kind}:{output}", **attributes))
        return output

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


# The keys below are those of ncnn's layers (docs/developer-guide/operators.md). Of a pair the key of the
# first is the default of the second.
def _convolution(graph: _Graph, layer: Layer, weights: LayerWeights) -> None:
    width = layer.value(1)
    height = layer.value(11, width)
    left = layer.value(4)
    top, right = layer.value(14, left), layer.value(15, left)
    kernel = weights.weights.reshape(layer.value(0), -1, height, width)
    inputs = [layer.inputs[0], graph.tensor(f"{layer.name}.weight", kernel)]
    if weights.bias is not None:
        inputs.append(graph.tensor(f"{layer.name}.bias", weights.bias))
    _activated(
        graph,
        layer,
        "Conv",
        inputs,
        kernel_shape=[height, width],
        strides=[layer.value(13, layer.value(3, 1)), layer.value(3, 1)],
        dilations=[layer.value(12, layer.value(2, 1)), layer.value(2, 1)],
        pads=[top, left, layer.value(16, top), right],
    )


def _inner_product(graph: _Graph, layer: Layer, weights: LayerWeights) -> None:
    inputs = [graph.add("Flatten", layer.inputs, f"{layer.name}.flat", axis=1)]
    inputs.append(graph.tensor(f"{layer.name}.weight", weights.weights))
    if weights.bias is not None:
        inputs.append(graph.tensor(f"{layer.name}.bias", weights.bias))
    _activated(graph, layer, "Gemm", inputs, transB=1)


def _activated(graph: _Graph, layer: Layer, kind: str, inputs: list[str], **attributes: Any) -> None:
    activation, output = layer.value(9), layer.outputs[0]
    _require(layer, activation in (0, 1))
    if activation == 0:
        graph.add(kind, inputs, output, **attributes)
    else:
        graph.add("Relu", [graph.add(kind, inputs, f"{output}.linear", **attributes)], output)


def _pooling(graph: _Graph, layer: Layer) -> None:
    average, output = layer.value(0) == 1, layer.outputs[0]
    if layer.value(4) or (layer.value(7) and layer.value(8) == 1):
        _require(layer, average)
        graph.add("GlobalAveragePool", layer.inputs, output)
        return
    _require(layer, not layer.value(7) and layer.value(5) in (0, 1))
    width, stride, left = layer.value(1), layer.value(2, 1), layer.value(3)
    top, right = layer.value(13, left), layer.value(14, left)
    attributes: dict[str, Any] = {
        "kernel_shape": [layer.value(11, width), width],
        "strides": [layer.value(12, stride), stride],
        "pads": [top, left, layer.value(15, top), right],
        "ceil_mode": int(layer.value(5) == 0),
    }
    if average:
        attributes["count_include_pad"] = layer.value(6)
    graph.add("AveragePool" if average else "MaxPool", layer.inputs, output, **attributes)


def _padding(graph: _Graph, layer: Layer) -> None:
    _require(layer, layer.value(4) == 0 and float(dict(layer.params).get(5, 0)) == 0)
    top, bottom, left, right, front, behind = (layer.value(key) for key in (0, 1, 2, 3, 7, 8))
    pads = np.array([0, front, top, left, 0, behind, bottom, right], np.int64)
    graph.add("Pad", [layer.inputs[0], graph.tensor(f"{layer.name}.pads", pads)], layer.outputs[0])


def _add(graph: _Graph, layer: Layer) -> None:
    _require(layer, layer.value(0) == 0 and len(layer.inputs) == 2)
    graph.add("Add", layer.inputs, layer.outputs[0])


def _relu(graph: _Graph, layer: Layer) -> None:
    _require(layer, float(dict(layer.params).get(0, 0)) == 0)
    graph.add("Relu", layer.inputs, layer.outputs[0])


def _flatten(graph: _Graph, layer: Layer) -> None:
    graph.add("Flatten", layer.inputs, layer.outputs[0], axis=1)


def _copy(graph: _Graph, layer: Layer) -> None:
    for blob in layer.outputs:
        graph.same(blob, layer.inputs[0])


def _require(layer: Layer, supported: bool) -> None:
    if not supported:
        raise UserError(f"the comparison cannot convert layer {layer.name} to ONNX: {layer.text}")


_WEIGHTED: dict[str, Callable[[_Graph, Layer, LayerWeights], None]] = {
    "Convolution": _convolution,
    "InnerProduct": _inner_product,
}
_WRITERS: dict[str, Callable[[_Graph, Layer], None]] = {
    "Pooling": _pooling,
    "Padding": _padding,
    "BinaryOp": _add,
    "ReLU": _relu,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Split": _copy,
    "Dropout": _copy,
    "Noop": _copy,
}
