"""The one network in the form each runtime reads, in each precision; made once, in a scratch folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.onnx_graph import write_onnx
from benchmarks.peers.onnx_int8 import write_int8_onnx
from benchmarks.peers.runtimes import Row, load
from deploy.conversion.parity import compare, random_pictures, reference_logits
from deploy.model_files import model_folder as mf
from deploy.model_files.precision_folders import folder_of, same_network
from deploy.quantization.activation_scales import MIN_IMAGES
from deploy.quantization.convert_precision import convert_precision
from deploy.winograd.measured_choice import tuned_elsewhere
from platform.errors import UserError
from platform.models.trained import TrainedModel

IMAGES = 64
"""Pictures on which errors and agreement are measured."""
SAME_NETWORK = 1e-2
"""Largest relative difference of an fp32 logit between the exported network and the trained one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Material:
    """What is compared, and on what."""

    fp32: mf.ModelFolder
    model_path: Path
    ncnn: dict[str, Path]
    """Model folders by precision."""
    onnx: dict[str, Path]
    """ONNX files by precision; bf16 is computed from the fp32 file."""
    inputs: NDArray[np.float32]
    """Normalized images [64, C, H, W]."""
    reference: NDArray[np.float32]
    """PyTorch's fp32 logits of them."""
    images_label: str
    """Where the images come from: a data set's label, or `random`."""
    warnings: tuple[str, ...]

    def path_for(self, row: Row) -> Path:
        """Return what this row's runtime loads."""
        match row.runtime:
            case "ncnn":
                return self.ncnn[row.precision]
            case "torch":
                return self.model_path
            case _:
                return self.onnx[row.precision]


def find_fp32(folder: Path) -> mf.ModelFolder:
    """Return the fp32 model folder that `folder` is, or stands beside.

    Raises:
        UserError: there is none.
    """
    model = mf.open_model_folder(folder)
    precision = model.document.precision
    if precision == "fp32":
        return model
    suffix = f"-{precision}"
    if folder.name.endswith(suffix):
        beside = folder.with_name(folder.name.removesuffix(suffix))
        if (beside / mf.DOCUMENT).is_file():
            return find_fp32(beside)
    raise UserError(
        f"{folder} is in {precision}; the comparison starts from the fp32 export: name its folder"
    )


def prepare(
    folder: Path,
    model_path: Path,
    model: TrainedModel,
    *,
    scratch: Path,
    precisions: Sequence[str],
    progress: Callable[[str], None] = lambda _: None,
) -> Material:
    """Make the files of all runtimes.

    An ncnn folder that the export left beside `folder` (`export-int8`) is taken as it is, tuned or not.

    Raises:
        UserError: the folder is damaged, or holds another network than `model`.
    """
    fp32 = find_fp32(folder)
    inputs, reference, calibration, label = _images(fp32, model)
    progress("writing the network for the other runtimes")
    onnx = {"fp32": scratch / "fp32.onnx"}
    write_onnx(fp32, onnx["fp32"])
    onnx["bf16"] = onnx["fp32"]
    ncnn = {"fp32": fp32.path}
    _check_same(fp32, inputs, reference)
    for precision in precisions:
        if precision == "fp32":
            continue
        beside = folder_of(fp32.path, precision)
        there = mf.open_model_folder(beside).document if (beside / mf.DOCUMENT).is_file() else None
        if there is not None and same_network(fp32.document, there):
            ncnn[precision] = beside
            continue
        ncnn[precision] = scratch / precision
        convert_precision(
            fp32.path,
            ncnn[precision],
            precision=cast("mf.Precision", precision),
            images=random_pictures(8, model.input_shape),
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
            input_name=fp32.document.input.blob,
            images=fp32.document.normalize(calibration),
        )
    told = [tuned_elsewhere(mf.open_model_folder(path).document) for path in ncnn.values()]
    return Material(
        fp32=fp32,
        model_path=model_path.absolute(),
        ncnn={precision: path.absolute() for precision, path in ncnn.items()},
        onnx=onnx,
        inputs=inputs,
        reference=reference,
        images_label=label,
        warnings=tuple(warning for warning in told if warning),
    )


def _images(
    fp32: mf.ModelFolder, model: TrainedModel
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8], str]:
    """Return inputs, reference logits, calibration images, and what they are."""
    from deploy.quantization.evaluation_images import find_pictures

    pictures = find_pictures(model, None)
    if pictures is None:
        images = random_pictures(IMAGES, model.input_shape)
        calibration, label = random_pictures(MIN_IMAGES, model.input_shape, seed=1), "random"
    else:
        images, calibration = pictures.validation.images[:IMAGES], pictures.calibration
        label = f"{pictures.label}, validation"
    _, reference = reference_logits(model, images)
    return fp32.document.normalize(images), reference, calibration, label


def _check_same(fp32: mf.ModelFolder, inputs: NDArray[np.float32], reference: NDArray[np.float32]) -> None:
    infer = load(Row(runtime="ncnn", precision="fp32"), fp32.path, threads=1)
    found = compare(reference, np.stack([infer(image[None]) for image in inputs]))
    if found.max_relative > SAME_NETWORK:
        raise UserError(
            f"{fp32.path} does not hold the network of the trained model: the logits differ by "
            f"{found.max_abs:.2g} of at most {found.max_logit:.3g}; name the right file with --model"
        )
