"""Write the peers' ONNX files: fp32 by PyTorch's exporter, int8 by onnxruntime's static quantization."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from platform.models.trained import TrainedModel

OPSET = 17
_INPUT = "in0"


def write_onnx(model: TrainedModel, path: Path) -> None:
    """Write a network with folded batch normalization to a file: [1, C, H, W] to [1, classes]."""
    with warnings.catch_warnings():
        # The newer exporter needs another package, and keeps the batch normalization as a layer of its own.
        # This one warns that it is old, and that the sizes of a padding remain computations.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.network(),
            (torch.zeros(1, *model.input_shape),),
            str(path),
            input_names=[_INPUT],
            output_names=["out0"],
            opset_version=OPSET,
            dynamo=False,
        )


def write_int8_onnx(source: Path, target: Path, *, images: NDArray[np.float32]) -> None:
    """Quantize an fp32 ONNX file to per-channel int8 weights and uint8 activations, as x86 instructions take.

    Args:
        source: the fp32 file.
        target: the file to write.
        images: normalized calibration images [N, C, H, W].
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Iterates over the calibration images."""

        def __init__(self) -> None:
            self.rest: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.rest, None)
            return None if image is None else {_INPUT: image[None]}

    # It logs the advice to preprocess the graph, whose layers are already folded.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)
