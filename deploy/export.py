"""Export a trained network to ncnn: a model folder that the C++ engine runs.

    python -m deploy.export SWEEP|MODEL.pt [--precision fp32,bf16,int8] [--tune] [--output DIR]

SWEEP is a sweep's folder or its id under runs/, `latest` for the newest; its final model is exported. An
export whose answers differ from PyTorch's is refused, a lower precision that costs more than 1 point of
accuracy too. The results, the folders' paths, are printed on stdout.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from deploy.conversion.export_source import exporter_versions, find_images, find_target, known_source
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.model_folder import Precision
from platform.errors import UsageError, UserError, did_you_mean, run_command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deploy.conversion.parity import Parity
    from platform.models.trained import TrainedModel

SELF_TEST_TOLERANCE = 1e-3
"""Relative to the largest logit: above another processor's rounding, below the effect of swapped colors."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A finished export."""

    folder: Path
    precision: str
    bytes: int
    """Size of the weights."""
    parity: Parity
    parity_data: str
    """The images that parity was measured on: a data set's label, or `random`."""
    tuned_layers: tuple[str, ...]
    """Convolutions that do not use Winograd's transform."""

    def at(self, folder: Path) -> ExportResult:
        """Return the same export after it was moved."""
        return replace(self, folder=folder)


def export_model(
    model_path: Path,
    out_dir: Path,
    *,
    parity_images: NDArray[np.uint8] | None = None,
    parity_data: str | None = None,
    source: Mapping[str, Any] | None = None,
    tuned: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ExportResult:
    """Convert a trained model to a model folder in fp32, checked against PyTorch.

    Args:
        model_path: what `platform.models.trained` wrote.
        out_dir: the model folder; an older one there is replaced once the new one is whole.
        parity_images: test images uint8 [N, C, H, W] to compare on, 256 or more; `None`: random pictures.
        parity_data: what they are; by default the label of the data that the model was trained on.
        source: `run`, `sweep`, `commit`, `data`, `test_accuracy`, beyond what the trained model knows itself.
        tuned: choose Winograd's transform by measurement on this machine, not by rule.
        progress: told, in words, what is going on.

    Raises:
        UserError: the model cannot be read or converted, ncnn's logits differ by more than `FP32_TOLERANCE`,
            or `out_dir` cannot be written. `out_dir` is then as it was.

    Folders beside `out_dir` that hold its former network in other precisions are removed.
    """
    from deploy.conversion.parity import MIN_IMAGES, random_pictures
    from deploy.model_files.model_folder import FILES
    from deploy.model_files.precision_folders import drop_siblings, siblings
    from platform.models.trained import load_trained_model

    model = load_trained_model(model_path)
    if parity_images is None:
        parity_images, parity_data = random_pictures(MIN_IMAGES, model.input_shape), "random"
    with replacing_folder(out_dir, own_files=FILES) as folder:
        result = _export(
            model,
            folder,
            out_dir,
            parity_images,
            parity_data or model.data_label,
            known_source(model, source or {}),
            tuned,
            progress,
        )
    for old in drop_siblings(out_dir, keep=siblings(out_dir).values()):
        progress(f"removed {old}: it held the network that was exported to {out_dir} before")
    return result


def _export(
    model: TrainedModel,
    folder: Path,
    out_dir: Path,
    images: NDArray[np.uint8],
    images_label: str,
    origin: Mapping[str, Any],
    tuned: bool,
    progress: Callable[[str], None],
) -> ExportResult:
    from deploy.conversion.ncnn_net import load_net, run
    from deploy.conversion.parity import FP32_TOLERANCE, compare, reference_logits
    from deploy.conversion.torch_to_ncnn import convert
    from deploy.model_files import model_folder as mf
    from deploy.winograd.measured_choice import tune_here
    from deploy.winograd.rule import tune

    with tempfile.TemporaryDirectory() as scratch:
        progress(f"converting {model.model.name} to ncnn")
        param, weights = convert(model.network(), input_shape=model.input_shape, scratch=Path(scratch))
        text, plain = tune(param.read_text(encoding="utf-8"), weights, input_shape=model.input_shape)
        tuning: dict[str, object] = {"method": "rule", "no_winograd": plain}
        if tuned:
            found = tune_here(
                text, weights, input_shape=model.input_shape, precision="fp32", progress=progress
            )
            text, plain, tuning = found.text, found.no_winograd, found.record()
        (folder / mf.PARAM).write_text(text, encoding="utf-8")
        shutil.copyfile(weights, folder / mf.WEIGHTS)

    progress(f"comparing ncnn with PyTorch on {len(images)} images ({images_label})")
    inputs, reference = reference_logits(model, images)
    net = load_net(folder / mf.PARAM, folder / mf.WEIGHTS)
    parity = compare(reference, run(net, inputs))
    if parity.max_relative > FP32_TOLERANCE:
        raise UserError(
            f"ncnn's logits differ from PyTorch's by up to {parity.max_abs:.2g} (mean {parity.mean_abs:.2g}, "
            f"largest logit {parity.max_logit:.3g}, top-1 agreement {parity.top1_agreement:.2%}); an fp32 "
            f"export must stay within {FP32_TOLERANCE:g} of the largest logit. Nothing was exported: some "
            "layer of the network is computed differently"
        )

    inputs, self_test = reference_logits(model, mf.self_test_images(model.input_shape))
    patterns = compare(self_test, run(net, inputs))
    tolerance = SELF_TEST_TOLERANCE * patterns.max_logit
    if patterns.max_abs > tolerance:
        raise UserError(
            f"ncnn's logits for the self-test's patterns differ from PyTorch's by {patterns.max_abs:.2g}, "
            f"more than the engine allows ({tolerance:.2g}); nothing was exported"
        )
    channels, height, width = model.input_shape
    document = mf.ModelDocument(
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
        files={name: mf.describe_file(folder / name) for name in (mf.PARAM, mf.WEIGHTS)},
        self_test=mf.SelfTest(
            tolerance=tolerance,
            logits=tuple(tuple(row) for row in self_test.astype(float).tolist()),
        ),
        parity=mf.ParityInfo(**asdict(parity), data=images_label),
        source=mf.SourceInfo(**origin),
        exporter=exporter_versions(),
        tuning=tuning,
    )
    mf.write_document(folder, document)
    mf.open_model_folder(folder)
    return ExportResult(
        folder=out_dir,
        precision="fp32",
        bytes=document.files[mf.WEIGHTS].bytes,
        parity=parity,
        parity_data=images_label,
        tuned_layers=plain,
    )


def main() -> None:
    """Read the command line, export, print the folders."""
    run_command(lambda: tyro.cli(_command, prog="python -m deploy.export"))


def _command(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP|MODEL.pt")],
    output: Path | None = None,
    precision: str = "fp32",
    tune: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    accept_loss: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    calibration: Literal["percentile", "minmax", "kl"] = "percentile",
    data_dir: Path | None = None,
    runs: Path = Path("runs"),
) -> int:
    """Export a trained network to ncnn.

    Args:
        model: a sweep (its folder, its id under runs/, or `latest`), or the model.pt of a training run.
        output: the model folder to write; by default export/ in the sweep's folder or beside MODEL.pt.
        precision: some of fp32,fp16,bf16,int8; fp32 goes to OUTPUT in any case, int8 to OUTPUT-int8.
        tune: choose Winograd's transform by measurement on this machine, not by rule.
        accept_loss: keep a precision that costs more than 1 point of top-1 accuracy.
        calibration: how the scales of int8 are found.
        data_dir: the data to compare ncnn with PyTorch on, to calibrate and to judge with; by default what
            the model was trained on, if it is in the cache, else random pictures (int8 needs real ones).
        runs: where sweeps are kept.
    """
    wanted = parse_precisions(precision)
    target = find_target(model, runs=runs)
    out_dir = output or target.out_dir

    from deploy.conversion.parity import MIN_IMAGES
    from platform.models.trained import load_trained_model

    trained = load_trained_model(target.model_path)
    images, label = find_images(trained, data_dir, count=MIN_IMAGES) or (None, None)
    result = export_model(
        target.model_path,
        out_dir,
        parity_images=images,
        parity_data=label,
        source=target.source,
        tuned=tune,
        progress=_say,
    )
    parity = result.parity
    _say(
        f"ncnn against PyTorch on {parity.images} images ({result.parity_data}): largest logit difference "
        f"{parity.max_abs:.1e} (mean {parity.mean_abs:.1e}) of logits up to {parity.max_logit:.3g}, "
        f"top-1 agreement {parity.top1_agreement:.2%}"
    )
    print(result.folder)
    lower = [one for one in wanted if one != "fp32"]
    if not lower:
        return 0

    from deploy.quantization.accuracy import counter
    from deploy.quantization.evaluation_images import find_pictures
    from deploy.quantization.precisions import Judge, PrecisionRefused, export_precisions

    pictures = find_pictures(trained, data_dir)
    judge = Judge(out_dir, pictures, counter(_say), accept_loss=accept_loss) if pictures else None
    if judge is None:
        _say("the data the model was trained on is not in the cache: the accuracy of no precision is judged")
    status = 0
    for outcome in export_precisions(
        out_dir, out_dir, lower, judge=judge, method=calibration, tune=tune, progress=_say
    ):
        if isinstance(outcome, PrecisionRefused):
            status = outcome.exit_code
            _say(f"error: {outcome}")
        else:
            print(outcome)
    return status


def parse_precisions(text: str) -> list[Precision]:
    """Read `fp32,bf16,int8`.

    Raises:
        UsageError: one of them is no precision.
    """
    valid: dict[str, Precision] = {name: name for name in get_args(Precision)}
    words = list(dict.fromkeys(text.split(",")))
    for word in words:
        if word not in valid:
            raise UsageError(
                f"--precision takes some of {','.join(valid)}; got {word!r}{did_you_mean(word, valid)}"
            )
    return [valid[word] for word in words]


def _say(message: str) -> None:
    print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
