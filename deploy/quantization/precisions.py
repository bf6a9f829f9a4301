"""The lower precisions of an exported network: converted, tuned, judged, and shipped or refused.

What decides is the accuracy on validation images. The test images choose nothing; they say how good the
network that ships is, and can only withdraw it: a final model has often learned its validation images by
heart, and on those it loses little in any precision.
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

from deploy.conversion.parity import MIN_IMAGES, random_pictures
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.precision_folders import folder_of
from deploy.quantization.accuracy import Accuracy, Count
from deploy.quantization.activation_scales import Method
from deploy.quantization.convert_precision import QuantizeResult, convert_precision
from platform.errors import UserError

if TYPE_CHECKING:
    from deploy.quantization.evaluation_images import Pictures

LARGEST_LOSS = 0.01
"""Top-1 accuracy, as a share, that a precision may cost."""

Progress = Callable[[str], None]


class PrecisionRefused(UserError):  # noqa: N818 - a verdict
    """The network loses too much in this precision."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network in another precision that lies in a scratch folder and may ship."""

    result: QuantizeResult
    validation: Accuracy | None
    """None where there are no images to judge by."""


class Judge:
    """Compares folders with their fp32 source; counts the source's right answers once."""

    def __init__(self, source: Path, pictures: Pictures, count: Count, *, accept_loss: bool = False) -> None:
        self.source = source
        self.pictures = pictures
        self.count = count
        self.accept_loss = accept_loss

    @cached_property
    def validation(self) -> Accuracy:
        """The source's accuracy on the validation images."""
        return self.count(self.source, self.pictures.validation)

    @cached_property
    def test(self) -> Accuracy:
        """The source's accuracy on the test images."""
        return self.count(self.source, self.pictures.test)

    def check(self, precision: str, found: Accuracy, reference: Accuracy, images: str) -> None:
        """Raise `PrecisionRefused` if more is lost than may be, and that was not accepted."""
        loss = reference.top1 - found.top1
        if loss > LARGEST_LOSS and not self.accept_loss:
            raise PrecisionRefused(
                f"{precision} costs {100 * loss:.2f} points of top-1 accuracy on {found.images:,} {images} "
                f"images ({found.top1:.2%} instead of {reference.top1:.2%}), more than "
                f"{100 * LARGEST_LOSS:g}; it was not exported. Take another precision, or --accept-loss"
            )


@contextmanager
def candidate(
    source: Path,
    precision: mf.Precision,
    *,
    judge: Judge | None,
    method: Method = "percentile",
    tune: bool = False,
    progress: Progress = lambda _: None,
) -> Iterator[Candidate]:
    """Give the network of `source` in another precision, judged on the validation images; removed after.

    Args:
        source: a model folder in fp32.
        precision: fp16, bf16 or int8.
        judge: decides; without one, which int8 needs for its images, nothing is judged.
        method: int8 only: how the scales are found.
        tune: choose Winograd's transform by measurement on this machine.
        progress: told, in words, what is going on.

    Raises:
        PrecisionRefused: it loses too much.
        UserError: it cannot be converted.
    """
    if judge is None and precision == "int8":
        raise UserError(
            "int8 is calibrated and judged on images of the data the model was trained on, which are not in "
            "the cache; name their place with --data-dir"
        )
    image = mf.open_model_folder(source).document.input
    random = random_pictures(MIN_IMAGES, (image.channels, image.height, image.width))
    with tempfile.TemporaryDirectory(prefix="precision-") as scratch:
        result = convert_precision(
            source,
            Path(scratch, precision),
            precision=precision,
            images=judge.pictures.validation.images[:MIN_IMAGES] if judge else random,
            images_label=f"{judge.pictures.label}, validation" if judge else "random",
            calibration=judge.pictures.calibration if judge else None,
            method=method,
            tuned=tune,
            progress=progress,
        )
        if judge is None:
            yield Candidate(result=result, validation=None)
            return
        progress(f"counting right answers in {precision} on {len(judge.pictures.validation):,} images")
        found = judge.count(result.folder, judge.pictures.validation)
        judge.check(precision, found, judge.validation, "validation")
        yield Candidate(result=result, validation=found)


def export_precisions(
    source: Path,
    out_dir: Path,
    precisions: Sequence[mf.Precision],
    *,
    judge: Judge | None,
    method: Method = "percentile",
    tune: bool = False,
    progress: Progress = lambda _: None,
) -> Iterator[Path | PrecisionRefused]:
    """Export each of `precisions` beside `out_dir`; yield its folder, or why it was refused."""
    for precision in precisions:
        target = folder_of(out_dir, precision)
        try:
            with candidate(
                source, precision, judge=judge, method=method, tune=tune, progress=progress
            ) as found:
                ship(found, target, judge=judge, progress=progress)
        except PrecisionRefused as refusal:
            yield refusal
        else:
            yield target


def ship(
    chosen: Candidate, out_dir: Path, *, judge: Judge | None, progress: Progress = lambda _: None
) -> None:
    """Measure the chosen network on the test images, say so in model.json, and put it into `out_dir`.

    Raises:
        PrecisionRefused: it loses too much there; `out_dir` is as it was.
        UserError: `out_dir` cannot be written.
    """
    folder, precision = chosen.result.folder, chosen.result.precision
    document = mf.open_model_folder(folder).document
    if judge is not None and chosen.validation is not None:
        progress(f"counting right answers in {precision} on {len(judge.pictures.test):,} test images")
        test = judge.count(folder, judge.pictures.test)
        judge.check(precision, test, judge.test, "test")
        document = with_accuracy(document, judge, chosen.validation, test)
    with replacing_folder(out_dir, own_files=mf.FILES) as new:
        copy_into(new, folder, document)


def copy_into(new: Path, folder: Path, document: mf.ModelDocument) -> None:
    """Copy a model folder's two files into an empty one, described by `document`."""
    for name in (mf.PARAM, mf.WEIGHTS):
        shutil.copyfile(folder / name, new / name)
    mf.write_document(new, document)


def with_accuracy(
    document: mf.ModelDocument, judge: Judge, validation: Accuracy, test: Accuracy
) -> mf.ModelDocument:
    """Return `document` with what was counted, under `accuracy`; its source's figure becomes its own."""

    def beside(found: Accuracy, reference: Accuracy) -> dict[str, object]:
        return {"images": found.images, "top1": found.top1, "fp32_top1": reference.top1}

    accuracy = {
        "data": judge.pictures.label,
        "computed_by": test.computed_by,
        "largest_loss": None if judge.accept_loss else LARGEST_LOSS,
        "validation": {**beside(validation, judge.validation), "held_out": judge.pictures.held_out},
        "test": beside(test, judge.test),
    }
    source = document.source.model_copy(update={"test_accuracy": test.top1})
    return document.model_copy(update={"accuracy": accuracy, "source": source})
