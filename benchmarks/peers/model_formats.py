"""Write the network in each runtime's format and precision to a scratch folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.onnx_files import write_int8_onnx, write_onnx
from benchmarks.peers.runtimes import Row, load
from deploy.conversion.parity import compare, random_images, reference_logits
from deploy.model_files import model_folder as mf
from deploy.model_files.precision_folders import find_lower_precisions, find_precision_folder
from deploy.quantization.activation_scales import MIN_IMAGES
from deploy.quantization.convert_precision import convert_precision
from deploy.winograd.measured_choice import tuning_warning
from platform.common.errors import UserError
from platform.models.trained import TrainedModel

IMAGES = 64
"""Number of images for errors and top-1 agreement."""
MAX_LOGIT_DIFFERENCE = 1e-2
"""Largest relative difference of an fp32 logit between the exported network and the trained one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedModels:
    """The network in every format, with inputs and reference logits."""

    fp32: mf.ModelFolder
    model_path: Path
    engine: dict[str, Path]
    """Model folders by precision."""
    onnx: dict[str, Path]
    """ONNX files by precision; bf16 uses the fp32 file."""
    inputs: NDArray[np.float32]
    """Normalized images [64, C, H, W]."""
    reference: NDArray[np.float32]
    """PyTorch's fp32 logits [64, classes]."""
    images_label: str
    """Label of the images' data set, or `random`."""
    warnings: tuple[str, ...]

    def path_for(self, row: Row) -> Path:
        """Return the file or folder that this row's runtime loads."""
        match row.runtime:
            case "engine":
                return self.engine[row.precision]
            case "torch":
                return self.model_path
            case _:
                return self.onnx[row.precision]


def prepare_models(
    folder: Path,
    model_path: Path,
    model: TrainedModel,
    *,
    scratch: Path,
    precisions: Sequence[mf.ModelPrecision],
    progress: Callable[[str], None] = lambda _: None,
) -> PreparedModels:
    """Write the files of all runtimes.

    An exported ncnn folder next to `folder` (`export-int8`) is used unchanged, tuned or not.

    Raises:
        UserError: the folder is damaged, there is none in fp32, or its network differs from `model`.
    """
    fp32 = mf.open_model_folder(find_precision_folder(folder, "fp32"))
    inputs, reference, calibration, label = _images(fp32, model)
    progress("converting the network for the other runtimes")
    onnx = {"fp32": scratch / "fp32.onnx"}
    write_onnx(model, onnx["fp32"])
    onnx["bf16"] = onnx["fp32"]
    ncnn: dict[mf.ModelPrecision, Path] = {"fp32": fp32.path, **find_lower_precisions(fp32.path)}
    _check_same_network(fp32, inputs, reference)
    for precision in precisions:
        if precision in ncnn:
            continue
        ncnn[precision] = scratch / precision
        convert_precision(
            fp32.path,
            ncnn[precision],
            precision=precision,
            images=random_images(8, model.input_shape),
            images_label="random",
            calibration=calibration,
            progress=progress,
        )
    if "int8" in precisions:
        progress(f"quantizing for the other runtimes on {len(calibration)} images")
        onnx["int8"] = scratch / "int8.onnx"
        write_int8_onnx(
            onnx["fp32"],
            onnx["int8"],
            images=fp32.document.normalize(calibration),
        )
    warnings = [tuning_warning(mf.read_document(ncnn[precision])) for precision in precisions]
    return PreparedModels(
        fp32=fp32,
        model_path=model_path.absolute(),
        engine={precision: path.absolute() for precision, path in ncnn.items()},
        onnx=onnx,
        inputs=inputs,
        reference=reference,
        images_label=label,
        warnings=tuple(warning for warning in warnings if warning),
    )


def _images(
    fp32: mf.ModelFolder, model: TrainedModel
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], str]:
    """Return inputs, reference logits, calibration images, and the images' label."""
    from deploy.conversion.export_source import find_dataset
    from deploy.quantization.evaluation_images import split_evaluation_data

    info = find_dataset(model, None)
    if info is None:
        images = random_images(IMAGES, model.input_shape)
        calibration, label = random_images(MIN_IMAGES, model.input_shape, seed=1), "random"
    else:
        data = split_evaluation_data(model, info)
        images, calibration = data.validation.images[:IMAGES], data.calibration
        label = f"{data.label}, validation"
    _, reference = reference_logits(model, images)
    return fp32.document.normalize(images), reference, calibration, label


def _check_same_network(
    fp32: mf.ModelFolder, inputs: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    infer = load(Row(runtime="engine", precision="fp32"), fp32.path, threads=1)
    found = compare(reference, np.stack([infer(image[None]) for image in inputs]))
    if found.max_relative > MAX_LOGIT_DIFFERENCE:
        raise UserError(
            f"{fp32.path} does not hold the network of the trained model: the logits differ by "
            f"{found.max_abs:.2g}, the largest is {found.max_logit:.3g}; give the right file with --model"
        )
