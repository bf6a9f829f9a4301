"""Export a network in lower precisions if the loss of accuracy is small enough.

The decision uses validation images. The test images provide the reported accuracy and can reject a precision,
but never choose one: a final model is often trained on its validation images, and loses little on those in
any precision.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.conversion.parity import MIN_IMAGES, random_images
from deploy.engine_build.engine_model import EngineModel
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.precision_folders import precision_folder
from deploy.quantization.accuracy import Accuracy, Evaluator
from deploy.quantization.activation_scales import Method
from deploy.quantization.convert_precision import convert_precision
from deploy.winograd.kernel_choice import time_ratio
from platform.common.errors import UserError
from platform.common.text_format import percent

if TYPE_CHECKING:
    from deploy.quantization.evaluation_images import EvaluationData

LARGEST_LOSS = 0.01
"""Largest permitted loss of top-1 accuracy, as a fraction."""

Progress = Callable[[str], None]


class PrecisionRefused(UserError):  # noqa: N818 - a result, not an error
    """The network loses too much accuracy in this precision, or gains no speed."""


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """A network in a lower precision, in a scratch folder until it is published."""

    model: mf.ModelFolder
    validation: Accuracy | None
    """None without validation images."""


class AccuracyGate:
    """Rejects precisions that lose too much accuracy compared with fp32; evaluates fp32 only once."""

    def __init__(
        self, source: Path, data: EvaluationData, evaluate: Evaluator, *, accept_loss: bool = False
    ) -> None:
        self.source = source
        self.data = data
        self.evaluate = evaluate
        self.accept_loss = accept_loss

    @cached_property
    def validation(self) -> Accuracy:
        """Accuracy of the source on the validation images."""
        return self.evaluate(self.source, self.data.validation)

    @cached_property
    def test(self) -> Accuracy:
        """Accuracy of the source on the test images."""
        return self.evaluate(self.source, self.data.test)

    def check(self, precision: str, found: Accuracy, reference: Accuracy, images: str) -> None:
        """Raise `PrecisionRefused` if the loss exceeds `LARGEST_LOSS`, unless `accept_loss`."""
        loss = reference.top1 - found.top1
        if loss > LARGEST_LOSS and not self.accept_loss:
            raise PrecisionRefused(
                f"{precision} costs {100 * loss:.2f} points of top-1 accuracy on {found.images:,} {images} "
                f"images ({percent(found.top1)} instead of {percent(reference.top1)}), more than "
                f"{100 * LARGEST_LOSS:g}; it was not exported. Use another precision, or --accept-loss"
            )


@contextmanager
def converted_model(
    source: Path,
    precision: mf.ModelPrecision,
    *,
    gate: AccuracyGate | None,
    method: Method = "percentile",
    tune: bool = False,
    progress: Progress = lambda _: None,
) -> Iterator[ConvertedModel]:
    """Yield the network of `source` in a lower precision, checked on the validation images.

    Args:
        source: a model folder in fp32.
        precision: fp16, bf16 or int8.
        gate: checks the accuracy and provides int8's calibration images; None: no check, and no int8.
        method: int8 only: calibration method.
        tune: choose Winograd's transform and the kernels by measurement on this machine. oneDNN's kernels,
            whose int8 arithmetic differs, are used only if they keep the accuracy.
        progress: called with progress messages.

    Raises:
        PrecisionRefused: the loss of accuracy is too large.
        UserError: the network cannot be converted.
    """
    if gate is None and precision == "int8":
        raise UserError(
            "int8 is calibrated and checked on images of the model's training data, which are not in the "
            "cache; give their folder with --data-dir"
        )
    random = random_images(MIN_IMAGES, mf.open_model_folder(source).document.input.shape)
    with tempfile.TemporaryDirectory(prefix="precision-") as scratch:

        def convert(try_onednn: bool) -> ConvertedModel:
            model = convert_precision(
                source,
                Path(scratch, precision),
                precision=precision,
                images=gate.data.validation.images[:MIN_IMAGES] if gate else random,
                images_label=f"{gate.data.label}, validation" if gate else "random",
                calibration=gate.data.calibration if gate else None,
                method=method,
                tuned=tune,
                try_onednn=try_onednn,
                progress=progress,
            )
            if gate is None:
                return ConvertedModel(model=model, validation=None)
            progress(f"evaluating {precision} on {len(gate.data.validation):,} validation images")
            found = gate.evaluate(model.path, gate.data.validation)
            try:
                gate.check(precision, found, gate.validation, "validation")
            except PrecisionRefused as refusal:
                if (model.document.tuning or {}).get("kernels") != "onednn":
                    raise
                progress(f"trying ncnn's kernels: with oneDNN's, {refusal}")
                return convert(try_onednn=False)
            return ConvertedModel(model=model, validation=found)

        yield convert(try_onednn=True)


def _check_speed(source: Path, model: mf.ModelFolder) -> None:
    """Raise `PrecisionRefused` if bf16 is slower than fp32 here; skip the check without the C++ engine."""
    try:
        models = EngineModel(model.path), EngineModel(source)
    except UserError:
        return
    ratio = time_ratio(*models, model.document.input.shape)
    if ratio > 1:
        raise PrecisionRefused(
            f"bf16 takes {ratio:.2f} times the processor time of fp32 on this machine; it was not exported. "
            "To export it for another machine, omit --tune"
        )


def export_precisions(
    source: Path,
    out_dir: Path,
    precisions: Sequence[mf.ModelPrecision],
    *,
    gate: AccuracyGate | None,
    method: Method = "percentile",
    tune: bool = False,
    progress: Progress = lambda _: None,
) -> Iterator[Path | PrecisionRefused]:
    """Export each of `precisions` next to `out_dir`; yield its folder, or the reason for its refusal.

    A tuned bf16 is also refused if it is slower than fp32 on this machine.
    """
    for precision in precisions:
        target = precision_folder(out_dir, precision)
        try:
            with converted_model(
                source, precision, gate=gate, method=method, tune=tune, progress=progress
            ) as found:
                if tune and precision == "bf16":
                    _check_speed(source, found.model)
                publish(found, target, gate=gate, progress=progress)
        except PrecisionRefused as refusal:
            yield refusal
        else:
            yield target


def publish(
    chosen: ConvertedModel, out_dir: Path, *, gate: AccuracyGate | None, progress: Progress = lambda _: None
) -> None:
    """Evaluate the chosen network on the test images, record its accuracy, and move it to `out_dir`.

    Raises:
        PrecisionRefused: the loss on the test images is too large; `out_dir` is unchanged.
        UserError: `out_dir` cannot be written.
    """
    folder, document = chosen.model.path, chosen.model.document
    precision = document.precision
    if gate is not None and chosen.validation is not None:
        progress(f"evaluating {precision} on {len(gate.data.test):,} test images")
        test = gate.evaluate(folder, gate.data.test)
        gate.check(precision, test, gate.test, "test")
        document = add_accuracy(document, gate, chosen.validation, test)
    with replacing_folder(out_dir, own_files=mf.FILES) as new:
        copy_into(new, folder, document)


def copy_into(new: Path, folder: Path, document: mf.ModelDocument) -> None:
    """Copy the two ncnn files of `folder` to the empty folder `new`, and write `document` there."""
    for name in (mf.PARAM, mf.WEIGHTS):
        shutil.copyfile(folder / name, new / name)
    mf.write_document(new, document)


def add_accuracy(
    document: mf.ModelDocument, gate: AccuracyGate, validation: Accuracy, test: Accuracy
) -> mf.ModelDocument:
    """Return `document` with the accuracies under `accuracy`, and `test` as its source's test accuracy."""

    def compared(found: Accuracy, reference: Accuracy) -> dict[str, object]:
        return {"images": found.images, "top1": found.top1, "fp32_top1": reference.top1}

    accuracy = {
        "data": gate.data.label,
        "computed_by": test.computed_by,
        "largest_loss": None if gate.accept_loss else LARGEST_LOSS,
        "validation": {**compared(validation, gate.validation), "held_out": gate.data.held_out},
        "test": compared(test, gate.test),
    }
    source = document.source.model_copy(update={"test_accuracy": test.top1})
    return document.model_copy(update={"accuracy": accuracy, "source": source})
