"""What ships of a sweep's champion: fp32, and beside it the fastest precision that keeps the accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.conversion.ncnn_net import load_net, options_for
from deploy.conversion.parity import MIN_IMAGES
from deploy.export import ExportResult, export_model
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.precision_folders import drop_siblings, folder_of
from deploy.quantization.accuracy import Count, counter
from deploy.quantization.evaluation_images import divide
from deploy.quantization.precisions import Candidate, Judge, PrecisionRefused, candidate, copy_into, ship
from deploy.winograd.measured_choice import cpu_times_ms, infer
from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.models.trained import load_trained_model

ROUNDS = 16


@dataclass(frozen=True, kw_only=True)
class ChampionExport:
    """A champion's model folders."""

    fp32: ExportResult
    best: Path
    """The folder of the fastest precision that was allowed; the fp32 one if that is it."""
    precision: mf.Precision
    """That precision."""
    cpu_ms: Mapping[str, float]
    """Median processor time of one inference on this machine, by precision, measured in turns."""
    refused: Mapping[str, str]
    """Why a precision does not ship, by precision."""


def precisions_here() -> tuple[mf.Precision, ...]:
    """Return the lower precisions that this machine's processor is fast in."""
    flags: set[str] = set()
    with suppress(OSError):
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    # x86 and ARM name it differently. Without it ncnn converts to fp32 and back: precision lost, nothing won.
    return ("bf16", "int8") if flags & {"avx512_bf16", "bf16"} else ("int8",)


def export_champion(
    model_path: Path,
    out_dir: Path,
    *,
    info: DatasetInfo,
    precisions: Sequence[mf.Precision] | None = None,
    tuned: bool = True,
    most_images: int | None = None,
    source: Mapping[str, Any] | None = None,
    count: Count | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ChampionExport:
    """Export a model in fp32 to `out_dir`, and in the best lower precision to `out_dir`-PRECISION.

    A precision is allowed if it costs at most 1 point of top-1 accuracy on the validation images; of those
    allowed and fp32 the fastest one on this machine is the best. Its accuracy on the test set stands in its
    model.json; should it lose more than 1 point there, fp32 ships alone: the test images can withdraw what
    was chosen, never choose. What was tried, and what came of it, stands in the fp32 model.json under
    `precisions`. `out_dir` is written last: once it is there, all is done, and nothing else is beside it.

    Args:
        model_path: the trained model.
        out_dir: the fp32 model folder.
        info: the data it was trained on.
        precisions: the lower precisions to try; by default those this machine is fast in.
        tuned: choose Winograd's transform by measurement on this machine.
        most_images: count right answers on so many validation and test images at most, evenly spread.
        source: as for `export_model`.
        count: how right answers are counted; by default by the C++ engine, built if needed.
        progress: told, in words, what is going on.

    Raises:
        UserError: as `export_model`. What keeps a lower precision from being exported is no error, it stands
            in `refused`.
    """
    model = load_trained_model(model_path)
    pictures = divide(model, info, most_images=most_images)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="champion-")), "fp32")
        fp32 = export_model(
            model_path,
            scratch,
            parity_images=pictures.test.images[:MIN_IMAGES],
            parity_data=pictures.label,
            source=source,
            tuned=tuned,
            progress=progress,
        )
        judge = Judge(scratch, pictures, count or counter(progress))
        refused: dict[str, str] = {}
        candidates: dict[str, Candidate] = {}
        for precision in precisions_here() if precisions is None else precisions:
            try:
                candidates[precision] = stack.enter_context(
                    candidate(scratch, precision, judge=judge, tune=tuned, progress=progress)
                )
            except UserError as reason:
                # Too few images to calibrate on, say: fp32 ships in any case.
                refused[precision] = f"{precision} was not exported: {reason}"
                if isinstance(reason, PrecisionRefused):
                    refused[precision] = str(reason)
                progress(refused[precision])
        progress("comparing the precisions' speed")
        times = _cpu_ms({"fp32": scratch} | {name: one.result.folder for name, one in candidates.items()})
        best = min(times, key=times.__getitem__)
        if best != "fp32":
            try:
                ship(candidates[best], folder_of(out_dir, best), judge=judge, progress=progress)
            except PrecisionRefused as refusal:
                refused[best] = str(refusal)
                progress(str(refusal))
                best = "fp32"
        progress(f"counting right answers in fp32 on {len(pictures.test):,} test images")
        document = mf.open_model_folder(scratch).document.model_copy(
            update={
                "accuracy": _fp32_accuracy(judge),
                "precisions": {"best": best, "cpu_ms": times, "refused": refused},
            }
        )
        drop_siblings(out_dir, keep=[folder_of(out_dir, best)])
        with replacing_folder(out_dir, own_files=mf.FILES) as new:
            copy_into(new, scratch, document)
    return ChampionExport(
        fp32=fp32.at(out_dir),
        best=folder_of(out_dir, best),
        precision="fp32" if best == "fp32" else candidates[best].result.precision,
        cpu_ms=times,
        refused=refused,
    )


def _fp32_accuracy(judge: Judge) -> dict[str, object]:
    test = judge.test
    return {
        "data": judge.pictures.label,
        "computed_by": test.computed_by,
        "test": {"images": test.images, "top1": test.top1, "fp32_top1": test.top1},
    }


def _cpu_ms(folders: Mapping[str, Path]) -> dict[str, float]:
    work = []
    for path in folders.values():
        folder = mf.open_model_folder(path)
        image = folder.document.input
        shape = (image.channels, image.height, image.width)
        net = load_net(folder.param, folder.weights, options_for(folder.document.precision))
        work.append(partial(infer, net, np.random.default_rng(0).standard_normal(shape).astype(np.float32)))
    medians = np.median(cpu_times_ms(work, rounds=ROUNDS), axis=1)
    return dict(zip(folders, medians.tolist(), strict=True))
