"""Convert an fp32 model folder to fp16, bf16 or int8.

fp16 halves the file and computes in fp32. bf16 halves the file and computes in bf16 if the processor can.
int8 quarters the file and computes convolutions in 8 bits. The classifier, about 0.1 % of the work, stays in
fp32: quantizing it costs precision and saves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.conversion.ncnn_net import READABLE, load_net, options_for, run
from deploy.conversion.param_file import parse
from deploy.conversion.parity import compare, tolerant_self_test
from deploy.conversion.weights_file import read_weights, write_weights
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.quantization import activation_scales as cal
from deploy.quantization.int8_weights import write_int8
from deploy.winograd.kernel_choice import choose_kernels
from deploy.winograd.measured_choice import tune_by_measurement
from deploy.winograd.rule import tune_by_rule
from platform.common.errors import UsageError, UserError
from platform.common.time_left import TimeLeft


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
) -> mf.ModelFolder:
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
        inputs = folder.document.normalize(images)
        document, reference = _describe(folder, new, precision, inputs, images_label, notes, meter)
        if tuned and try_onednn:
            document = choose_kernels(new, document, inputs, reference, progress=progress)
        mf.open_model_folder(new)
        return mf.ModelFolder(out_dir, document)


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
    inputs: NDArray[np.float32],
    images_label: str,
    notes: dict[str, object],
    meter: TimeLeft,
) -> tuple[mf.ModelDocument, NDArray[np.float32]]:
    """Compare the files of `new` with fp32 and write model.json; return it, and the logits in fp32."""
    document = source.document
    before = load_net(source.param, source.weights)
    after = load_net(new / mf.PARAM, new / mf.WEIGHTS, options_for(precision))
    reference = run(before, inputs, progress=meter.update)
    logits = run(after, inputs, progress=lambda done: meter.update(len(inputs) + done))
    patterns = run(after, document.normalize(mf.self_test_images(document.input.shape)))
    labels = {"data": images_label, "reference": "ncnn fp32"}
    changed = document.model_copy(
        update={
            "precision": precision,
            "files": {name: mf.describe_file(new / name) for name in (mf.PARAM, mf.WEIGHTS)},
            "parity": compare(reference, logits).model_copy(update=labels),
            "self_test": tolerant_self_test(document, patterns),
            **notes,
        }
    )
    mf.write_document(new, changed)
    return changed, reference
