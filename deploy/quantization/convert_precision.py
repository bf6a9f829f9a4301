"""Convert an fp32 model folder to fp16, bf16 or int8.

fp16 halves the file and computes in fp32. bf16 halves the file and computes in bf16 if the processor can.
int8 quarters the file and computes convolutions in 8 bits. The classifier, about 0.1 % of the work, stays in
fp32: quantizing it costs precision and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.ncnn_net import READABLE, load_net, options_for, run
from deploy.conversion.param_file import parse
from deploy.conversion.parity import compare
from deploy.conversion.weights_file import read_weights, write_weights
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.quantization import activation_scales as cal
from deploy.quantization.int8_weights import write_int8
from deploy.winograd.kernel_choice import find_faster_onednn
from deploy.winograd.measured_choice import tune_by_measurement
from deploy.winograd.rule import tune_by_rule
from platform.common.errors import UsageError, UserError
from platform.common.time_left import TimeLeft

SELF_TEST_MARGIN = 4
"""Self-test tolerance as a multiple of the error on this machine; other processors round differently."""


@dataclass(frozen=True, kw_only=True)
class ConversionResult:
    """A model folder in a lower precision."""

    folder: Path
    precision: mf.ModelPrecision
    document: mf.ModelDocument
    """Its model.json."""


def convert_precision(
    source: Path,
    out_dir: Path,
    *,
    precision: mf.ModelPrecision,
    images: NDArray[np.uint8],
    images_label: str,
    calibration: NDArray[np.uint8] | None = None,
    method: cal.Method = "percentile",
    tuned: bool = False,
    try_onednn: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> ConversionResult:
    """Write the network of an fp32 model folder in a lower precision.

    Args:
        source: a model folder in fp32.
        out_dir: the new model folder; an older one is replaced once the new one is complete.
        precision: fp16, bf16 or int8.
        images: test images uint8 [N, C, H, W] to compare the precisions on.
        images_label: label of their data set.
        calibration: int8 only: 512 or more training or validation images uint8, never test images.
        method: int8 only: calibration method.
        tuned: choose Winograd's transform and the kernels by measurement on this machine.
        try_onednn: whether oneDNN's kernels may be chosen.
        progress: called with progress messages.

    Raises:
        UsageError: calibration images are missing or too few, or `precision` is fp32.
        UserError: the folder is damaged or not in fp32, a weight exceeds the precision's range, or `out_dir`
            cannot be written.
    """
    if precision == "fp32":
        raise UsageError("the source is already fp32; choose fp16, bf16 or int8")
    folder = mf.open_model_folder(source)
    if folder.document.precision != "fp32":
        raise UserError(f"{source} is in {folder.document.precision}; only an fp32 export can be converted")
    if precision == "int8" and (calibration is None or len(calibration) < cal.MIN_IMAGES):
        got = 0 if calibration is None else len(calibration)
        raise UsageError(f"int8 needs at least {cal.MIN_IMAGES} calibration images, got {got}")

    with replacing_folder(out_dir, own_files=mf.FILES) as new:
        progress(f"converting {folder.document.name} to {precision}")
        notes = _write_files(folder, new, precision, calibration, method, progress)
        if tuned:
            notes["tuning"] = _tune(new, precision, folder.document.input, progress)
        what = f"comparing {precision} with fp32 on {len(images)} images ({images_label})"
        progress(what)
        meter = TimeLeft(what, 2 * len(images), progress)
        document, reference = _describe(folder, new, precision, images, images_label, notes, meter)
        if tuned and try_onednn:
            document = _choose_kernels(new, document, images, reference, progress)
        mf.open_model_folder(new)
        return ConversionResult(folder=out_dir, precision=precision, document=document)


def _write_files(
    source: mf.ModelFolder,
    new: Path,
    precision: mf.ModelPrecision,
    calibration: NDArray[np.uint8] | None,
    method: cal.Method,
    progress: Callable[[str], None],
) -> dict[str, object]:
    """Write the two ncnn files into `new`; return their `tuning` and `quantization` entries of model.json."""
    text, no_winograd = tune_by_rule(
        source.param.read_text(encoding="utf-8"),
        source.weights,
        input_shape=source.document.input.shape,
        precision=precision,
    )
    param = parse(text)
    weights = read_weights(param, source.weights.read_bytes())
    notes: dict[str, object] = {"tuning": {"method": "rule", "no_winograd": no_winograd}}
    if precision != "int8" or calibration is None:
        content = write_weights(param, weights, "bf16" if precision == "bf16" else "fp16")
    else:
        what = f"calibrating int8 on {len(calibration)} images"
        progress(what)
        meter = TimeLeft(what, 1.0, progress)
        layers = [layer for layer in param.layers if layer.type == "Convolution"]
        scales = cal.activation_scales(
            load_net(source.param, source.weights, READABLE),
            source.document.normalize(calibration),
            [layer.inputs[0] for layer in layers],
            method=method,
            progress=lambda done, total: meter.update(done / total),
        )
        param, content = write_int8(param, weights, {layer.name: scales[layer.inputs[0]] for layer in layers})
        notes["quantization"] = {"method": method, "images": len(calibration), "layers": len(layers)}
    (new / mf.PARAM).write_text(param.text(), encoding="utf-8")
    (new / mf.WEIGHTS).write_bytes(content)
    return notes


def _tune(
    new: Path, precision: mf.ModelPrecision, image: mf.InputInfo, progress: Callable[[str], None]
) -> dict[str, object]:
    """Tune the files of `new` by measurement; return the `tuning` entry of model.json."""
    tuned = tune_by_measurement(
        (new / mf.PARAM).read_text(encoding="utf-8"),
        new / mf.WEIGHTS,
        input_shape=image.shape,
        precision=precision,
        progress=progress,
    )
    (new / mf.PARAM).write_text(tuned.text, encoding="utf-8")
    return tuned.record()


def _describe(
    source: mf.ModelFolder,
    new: Path,
    precision: mf.ModelPrecision,
    images: NDArray[np.uint8],
    images_label: str,
    notes: dict[str, object],
    meter: TimeLeft,
) -> tuple[mf.ModelDocument, NDArray[np.float32]]:
    """Compare the files of `new` with fp32 and write model.json; return it, and the logits in fp32."""
    document = source.document
    before = load_net(source.param, source.weights)
    after = load_net(new / mf.PARAM, new / mf.WEIGHTS, options_for(precision))
    inputs = document.normalize(images)
    reference = run(before, inputs, progress=meter.update)
    logits = run(after, inputs, progress=lambda done: meter.update(len(images) + done))
    patterns = run(after, document.normalize(mf.self_test_images(document.input.shape)))
    changed = document.model_copy(
        update={
            "precision": precision,
            "files": {name: mf.describe_file(new / name) for name in (mf.PARAM, mf.WEIGHTS)},
            "parity": mf.ParityInfo(
                **asdict(compare(reference, logits)), data=images_label, reference="ncnn fp32"
            ),
            "self_test": _self_test(document, patterns),
            **notes,
        }
    )
    mf.write_document(new, changed)
    return changed, reference


def _self_test(document: mf.ModelDocument, patterns: NDArray[np.float32]) -> mf.SelfTest:
    """Return the self-test of `document`, with a tolerance for the logits `patterns` of its images."""
    expected = np.array(document.self_test.logits, np.float32)
    tolerance = SELF_TEST_MARGIN * compare(expected, patterns).max_abs
    return document.self_test.model_copy(update={"tolerance": max(document.self_test.tolerance, tolerance)})


def _choose_kernels(
    new: Path,
    document: mf.ModelDocument,
    images: NDArray[np.uint8],
    reference: NDArray[np.float32],
    progress: Callable[[str], None],
) -> mf.ModelDocument:
    """Use oneDNN's kernels in `new` if they are faster; return its model.json.

    The parity is then that of oneDNN. The tolerance of the self-test covers both, because other machines use
    ncnn's kernels.
    """
    choice = find_faster_onednn(new, progress=progress)
    if choice is None:
        return document
    parity = compare(reference, choice.infer_all(document.normalize(images)))
    patterns = choice.infer_all(document.normalize(mf.self_test_images(document.input.shape)))
    changed = document.model_copy(
        update={
            "parity": document.parity.model_copy(update=asdict(parity)),
            "self_test": _self_test(document, patterns),
            "tuning": {**(document.tuning or {}), **choice.record()},
        }
    )
    mf.write_document(new, changed)
    return changed
