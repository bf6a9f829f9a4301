"""Write the peers' int8 model with onnxruntime's static quantization and ncnn's calibration images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_int8_onnx(source: Path, target: Path, *, input_name: str, images: NDArray[np.float32]) -> None:
    """Quantize an fp32 ONNX file to per-channel int8 weights and uint8 activations, as x86 instructions take.

    Args:
        source: the fp32 file.
        target: the file to write.
        input_name: name of the graph's input.
        images: normalized calibration images [N, C, H, W].
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """Iterates over the calibration images."""

        def __init__(self) -> None:
            self.rest: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.rest, None)
            return None if image is None else {input_name: image[None]}

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
