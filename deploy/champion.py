"""Export a sweep's champion in fp32 and in the fastest lower precision that keeps the accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.conversion.ncnn_net import load_net, options_for
from deploy.conversion.parity import MIN_IMAGES
from deploy.engine_build.engine_model import EngineModel
from deploy.export import export_model
from deploy.model_files import model_folder as mf
from deploy.model_files.folder_swap import replacing_folder
from deploy.model_files.precision_folders import precision_folder, remove_lower_precisions
from deploy.quantization.accuracy import Evaluator, choose_evaluator
from deploy.quantization.evaluation_images import split_evaluation_data
from deploy.quantization.precisions import (
    AccuracyGate,
    ConvertedModel,
    PrecisionRefused,
    converted_model,
    copy_into,
    publish,
)
from deploy.winograd.measured_choice import cpu_times_ms, run_inference
from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.models.trained import load_trained_model

ROUNDS = 16


def native_precisions() -> tuple[mf.ModelPrecision, ...]:
    """Return the lower precisions that this machine's processor has instructions for."""
    flags: set[str] = set()
    with suppress(OSError):
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    # The x86 and the ARM name. Without bf16 instructions ncnn converts to fp32 and back, which is not faster.
    return ("bf16", "int8") if flags & {"avx512_bf16", "bf16"} else ("int8",)


def export_champion(
    model_path: Path,
    out_dir: Path,
    *,
    info: DatasetInfo,
    precisions: Sequence[mf.ModelPrecision] | None = None,
    tuned: bool = True,
    most_images: int | None = None,
    source: Mapping[str, Any] | None = None,
    evaluator: Evaluator | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, str]:
    """Export a model in fp32 to `out_dir`, and in the best lower precision to `out_dir`-PRECISION.

    A precision passes if it costs at most 1 point of top-1 accuracy on the validation images. The best one is
    the fastest on this machine among those that pass and fp32. Its test accuracy is recorded in its
    model.json. If it loses more than 1 point there, only fp32 is exported: the test images can reject the
    chosen precision but never choose one. The fp32 model.json has under `precisions` the best one, the median
    processor time of one inference in each (`cpu_ms`, from interleaved runs), and the refusals. `out_dir` is
    written last, so its presence means that the export is complete.

    Args:
        model_path: the trained model.
        out_dir: the fp32 model folder.
        info: the data set it was trained on.
        precisions: lower precisions to try; default: `native_precisions`.
        tuned: choose Winograd's transform and the kernels by measurement on this machine.
        most_images: maximum number of validation and of test images to evaluate, evenly spread.
        source: as for `export_model`.
        evaluator: measures top-1 accuracy; default: the C++ engine, built if needed.
        progress: called with progress messages.

    Returns:
        the reason for each precision that was not exported.

    Raises:
        UserError: as `export_model`. A lower precision that cannot be exported is not an error.
    """
    model = load_trained_model(model_path)
    data = split_evaluation_data(model, info, most_images=most_images)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="champion-")), "fp32")
        document = export_model(
            model_path,
            scratch,
            parity_images=data.test.images[:MIN_IMAGES],
            parity_data=data.label,
            source=source,
            tuned=tuned,
            progress=progress,
        ).document
        gate = AccuracyGate(scratch, data, evaluator or choose_evaluator(progress))
        refused: dict[str, str] = {}
        converted: dict[str, ConvertedModel] = {}
        for precision in native_precisions() if precisions is None else precisions:
            try:
                converted[precision] = stack.enter_context(
                    converted_model(scratch, precision, gate=gate, tune=tuned, progress=progress)
                )
            except UserError as reason:
                # For example, too few calibration images. fp32 is exported in any case.
                refused[precision] = f"{precision} was not exported: {reason}"
                if isinstance(reason, PrecisionRefused):
                    refused[precision] = str(reason)
                progress(refused[precision])
        progress("comparing the precisions' speed")
        times = _cpu_ms({"fp32": scratch} | {name: one.model.path for name, one in converted.items()})
        best = min(times, key=times.__getitem__)
        if best != "fp32":
            try:
                publish(converted[best], precision_folder(out_dir, best), gate=gate, progress=progress)
            except PrecisionRefused as refusal:
                refused[best] = str(refusal)
                progress(str(refusal))
                best = "fp32"
        progress(f"evaluating fp32 on {len(data.test):,} test images")
        test = gate.test
        accuracy = {
            "data": gate.data.label,
            "computed_by": test.computed_by,
            "test": {"images": test.images, "top1": test.top1, "fp32_top1": test.top1},
        }
        tried = {"best": best, "cpu_ms": times, "refused": refused}
        document = document.model_copy(update={"accuracy": accuracy, "precisions": tried})
        remove_lower_precisions(out_dir, keep=[precision_folder(out_dir, best)])
        with replacing_folder(out_dir, own_files=mf.FILES) as new:
            copy_into(new, scratch, document)
    return refused


def _cpu_ms(folders: Mapping[str, Path]) -> dict[str, float]:
    work = [_inference(mf.open_model_folder(path)) for path in folders.values()]
    medians = np.median(cpu_times_ms(work, rounds=ROUNDS), axis=1)
    return dict(zip(folders, medians.tolist(), strict=True))


def _inference(folder: mf.ModelFolder) -> Callable[[], object]:
    """Return a function that runs the network once, in the engine if it can be built, else in ncnn."""
    document = folder.document
    image = np.random.default_rng(0).standard_normal(document.input.shape).astype(np.float32)
    try:
        return partial(EngineModel(folder.path).infer, image[None])
    except UserError:
        net = load_net(folder.param, folder.weights, options_for(document.precision))
        return partial(run_inference, net, image)
