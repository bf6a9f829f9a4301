"""Export a trained network to an ncnn model folder for the C++ engine.

    python -m deploy.export SWEEP|MODEL.pt [--precision fp32,bf16,int8] [--tune] [--output DIR]

SWEEP is a sweep's folder or its id under runs/, or `latest`; its final model is exported. The export fails if
its logits differ from PyTorch's, or if a lower precision costs more than 1 point of top-1 accuracy. The paths
of the exported folders are printed to stdout.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from deploy.conversion.export_source import exporter_versions, find_dataset, find_target, source_info
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.model_folder import PRECISIONS, ModelPrecision
from platform.common.command_line import Flag, option, parse_command_line
from platform.common.errors import UsageError, UserError, did_you_mean, run_command
from platform.common.text_format import percent
from platform.common.time_left import TimeLeft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deploy.model_files.model_folder import ModelDocument, ModelFolder, ParityInfo, SelfTest
    from platform.models.trained import TrainedModel

SELF_TEST_TOLERANCE = 1e-3
"""Relative to the largest logit: above rounding differences between processors, below the effect of swapped
color channels."""


def export_model(
    model_path: Path,
    out_dir: Path,
    *,
    parity_images: NDArray[np.uint8] | None = None,
    parity_data: str | None = None,
    source: Mapping[str, Any] | None = None,
    tuned: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ModelFolder:
    """Convert a trained model to an fp32 model folder and compare it with PyTorch.

    Folders next to `out_dir` that hold its former network in other precisions are removed.

    Args:
        model_path: a file written by `platform.models.trained`.
        out_dir: the model folder; an older one is replaced once the new one is complete.
        parity_images: test images uint8 [N, C, H, W] to compare on, 256 or more; None: random images.
        parity_data: label of these images; default: the label of the model's training data.
        source: `run`, `sweep`, `commit`, `data`, `test_accuracy`; these override the model's own provenance.
        tuned: choose Winograd's transform and the kernels by measurement on this machine.
        progress: called with progress messages.

    Raises:
        UserError: the model cannot be read or converted, ncnn's logits differ by more than `FP32_TOLERANCE`,
            or `out_dir` cannot be written. `out_dir` is unchanged in all these cases.
    """
    from deploy.conversion.parity import FP32_TOLERANCE, MIN_IMAGES, random_images, reference_logits
    from deploy.model_files import model_folder as mf
    from deploy.model_files.precision_folders import find_lower_precisions, remove_lower_precisions
    from deploy.winograd.kernel_choice import choose_kernels
    from platform.models.trained import load_trained_model

    model = load_trained_model(model_path)
    if parity_images is None:
        parity_images, parity_data = random_images(MIN_IMAGES, model.input_shape), "random"
    label = parity_data or model.data_label
    with replacing_folder(out_dir, own_files=mf.FILES) as folder:
        tuning = _write_files(model, folder, tuned, progress)
        what = f"comparing ncnn with PyTorch on {len(parity_images)} images ({label})"
        progress(what)
        meter = TimeLeft(what, 2 * len(parity_images), progress)
        inputs, reference = reference_logits(model, parity_images, progress=meter.update)
        parity, self_test = _check_logits(model, folder, inputs, reference, meter)
        document = _describe(
            model,
            files={name: mf.describe_file(folder / name) for name in (mf.PARAM, mf.WEIGHTS)},
            parity=parity.model_copy(update={"data": label}),
            self_test=self_test,
            source=mf.SourceInfo(**source_info(model, source or {})),
            tuning=tuning,
        )
        mf.write_document(folder, document)
        if tuned:
            document = choose_kernels(
                folder, document, inputs, reference, tolerance=FP32_TOLERANCE, progress=progress
            )
        mf.open_model_folder(folder)
    for old in remove_lower_precisions(out_dir, keep=find_lower_precisions(out_dir).values()):
        progress(f"removed {old}: it held the network previously exported to {out_dir}")
    return mf.ModelFolder(out_dir, document)


def _describe(model: TrainedModel, **measured: Any) -> ModelDocument:
    """Return the model.json of an fp32 export."""
    from deploy.model_files import model_folder as mf

    channels, height, width = model.input_shape
    return mf.ModelDocument(
        name=model.model.name,
        input=mf.InputInfo(
            channels=channels,
            height=height,
            width=width,
            resize="direct" if model.shorter_side is None else "shorter_side_crop",
            shorter_side=model.shorter_side,
        ),
        normalization=mf.NormalizationInfo(
            mean=tuple(model.mean.flatten().tolist()), std=tuple(model.std.tolist())
        ),
        output=mf.OutputInfo(classes=model.class_names),
        precision="fp32",
        exporter=exporter_versions(),
        **measured,
    )


def _write_files(
    model: TrainedModel, folder: Path, tuned: bool, progress: Callable[[str], None]
) -> dict[str, object]:
    """Write the two ncnn files; return the `tuning` entry of model.json."""
    from deploy.conversion.torch_to_ncnn import convert
    from deploy.model_files.model_folder import PARAM, WEIGHTS
    from deploy.winograd.measured_choice import tune_by_measurement
    from deploy.winograd.rule import tune_by_rule

    shape = model.input_shape
    with tempfile.TemporaryDirectory() as scratch:
        progress(f"converting {model.model.name} to ncnn")
        param, weights = convert(model.network(), input_shape=shape, scratch=Path(scratch))
        text, no_winograd = tune_by_rule(param.read_text(encoding="utf-8"), weights, input_shape=shape)
        tuning: dict[str, object] = {"method": "rule", "no_winograd": no_winograd}
        if tuned:
            measured = tune_by_measurement(
                text, weights, input_shape=shape, precision="fp32", progress=progress
            )
            text, tuning = measured.text, measured.record()
        (folder / PARAM).write_text(text, encoding="utf-8")
        shutil.copyfile(weights, folder / WEIGHTS)
    return tuning


def _check_logits(
    model: TrainedModel,
    folder: Path,
    inputs: NDArray[np.float32],
    reference: NDArray[np.float32],
    meter: TimeLeft,
) -> tuple[ParityInfo, SelfTest]:
    """Compare ncnn's logits with PyTorch's, `reference`, and on the self-test images.

    `meter` counts the inputs after those of PyTorch.

    Raises:
        UserError: they differ by more than the tolerances.
    """
    from deploy.conversion.ncnn_net import load_net, run
    from deploy.conversion.parity import FP32_TOLERANCE, compare, reference_logits
    from deploy.model_files import model_folder as mf

    net = load_net(folder / mf.PARAM, folder / mf.WEIGHTS)
    parity = compare(reference, run(net, inputs, progress=lambda done: meter.update(len(inputs) + done)))
    if parity.max_relative > FP32_TOLERANCE:
        raise UserError(
            f"ncnn's logits differ from PyTorch's by up to {parity.max_abs:.2g} (mean {parity.mean_abs:.2g}, "
            f"largest logit {parity.max_logit:.3g}, top-1 agreement {percent(parity.top1_agreement)}); an "
            f"fp32 export must stay within {FP32_TOLERANCE:g} of the largest logit. Nothing was exported: "
            "ncnn computes some layer of the network differently"
        )
    inputs, reference = reference_logits(model, mf.self_test_images(model.input_shape))
    patterns = compare(reference, run(net, inputs))
    tolerance = SELF_TEST_TOLERANCE * patterns.max_logit
    if patterns.max_abs > tolerance:
        raise UserError(
            f"ncnn's logits for the self-test images differ from PyTorch's by {patterns.max_abs:.2g}, "
            f"more than the engine allows ({tolerance:.2g}); nothing was exported"
        )
    logits = tuple(tuple(row) for row in reference.astype(float).tolist())
    return parity, mf.SelfTest(tolerance=tolerance, logits=logits)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Export a trained network to ncnn."""

    model: Annotated[str, tyro.conf.Positional, option("SWEEP|MODEL.pt")]
    """A sweep (its folder, its id under runs/, or `latest`), or the model.pt of a training run."""
    output: Annotated[
        Path | None, option("PATH", default="export/ in the sweep's folder or next to MODEL.pt")
    ] = None
    """The model folder to write."""
    precision: Annotated[str, option("PRECISIONS", default="fp32")] = "fp32"
    """Some of fp32,fp16,bf16,int8; fp32 is always written to OUTPUT, int8 to OUTPUT-int8."""
    tune: Flag = False
    """Choose Winograd's transform, and ncnn's or oneDNN's kernels, by measurement on this machine."""
    accept_loss: Flag = False
    """Keep a precision that costs more than 1 point of top-1 accuracy."""
    calibration: Annotated[Literal["percentile", "minmax", "kl"], option(default="percentile")] = "percentile"
    """Calibration method of the int8 scales."""
    data_dir: Annotated[
        Path | None, option("PATH", default="the model's training data if it is cached, else random images")
    ] = None
    """Images for the comparison with PyTorch, for int8 calibration (which needs real images) and for the
    accuracy check."""
    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs")
    """Folder of the sweeps."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m deploy.export") -> int:
    """Read the command line, export, print the folders."""
    return _run(parse_command_line(Arguments, prog=prog, words=words))


def _run(arguments: Arguments) -> int:
    wanted = parse_precisions(arguments.precision)
    target = find_target(arguments.model, runs=arguments.runs)
    out_dir = arguments.output or target.out_dir

    import numpy as np

    from deploy.conversion.parity import MIN_IMAGES
    from deploy.quantization.evaluation_images import split_evaluation_data, spread
    from platform.data.cache import load_split
    from platform.models.trained import load_trained_model

    trained = load_trained_model(target.model_path)
    info = find_dataset(trained, arguments.data_dir)
    images = None if info is None else load_split(info, "test").images
    exported = export_model(
        target.model_path,
        out_dir,
        parity_images=None if images is None else images[spread(np.arange(len(images)), MIN_IMAGES)],
        parity_data=None if info is None else info.label,
        source=target.source,
        tuned=arguments.tune,
        progress=_say,
    )
    parity = exported.document.parity
    _say(
        f"ncnn against PyTorch on {parity.images} images ({parity.data}): largest logit difference "
        f"{parity.max_abs:.1e} (mean {parity.mean_abs:.1e}) of logits up to {parity.max_logit:.3g}, "
        f"top-1 agreement {percent(parity.top1_agreement)}"
    )
    print(exported.path)
    lower = [one for one in wanted if one != "fp32"]
    if not lower:
        return 0

    from deploy.quantization.accuracy import choose_evaluator
    from deploy.quantization.precisions import AccuracyGate, PrecisionRefused, export_precisions

    gate = None
    if info is not None:
        data = split_evaluation_data(trained, info)
        gate = AccuracyGate(out_dir, data, choose_evaluator(_say), accept_loss=arguments.accept_loss)
    else:
        _say("the model's training data is not in the cache: accuracy in lower precisions is not checked")
    status = 0
    for outcome in export_precisions(
        out_dir,
        out_dir,
        lower,
        gate=gate,
        method=arguments.calibration,
        tune=arguments.tune,
        progress=_say,
    ):
        if isinstance(outcome, PrecisionRefused):
            status = outcome.exit_code
            _say(f"error: {outcome}")
        else:
            print(outcome)
    return status


def parse_precisions(text: str, valid: Sequence[ModelPrecision] = PRECISIONS) -> list[ModelPrecision]:
    """Parse comma-separated precisions such as `fp32,bf16,int8`.

    Raises:
        UsageError: a precision is not in `valid`.
    """
    names: dict[str, ModelPrecision] = {name: name for name in valid}
    words = list(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in names:
            raise UsageError(
                f"--precision takes some of {','.join(names)}; got {word!r}{did_you_mean(word, names)}"
            )
    return [names[word] for word in words]


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
