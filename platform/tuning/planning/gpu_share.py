"""The share of a GPU per trial where the space file sets `resources_per_worker.GPU: measured`.

Small networks use only part of a large GPU's memory and compute units. The calibration measures the peak
memory of a run, and all trials that fit, with a safety margin, share the GPU. If the measured share turns
out too small, a trial that runs out of memory continues with gradient accumulation.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from platform.common.errors import UserError
from platform.data.dataset import DatasetInfo
from platform.space.distributions import Choice, Range
from platform.space.spec import SweepSpec
from platform.training.config import RunConfig
from platform.tuning.planning import calibration

MEMORY_MARGIN = 1.25
"""Factor on the measured memory, for fragmentation and optimizers with more state."""
CONTEXT_BYTES = 2**30
"""GPU memory of a process outside PyTorch's allocator: the CUDA context, kernels, cuDNN and cuBLAS."""
_MAX_NETWORKS = 4


def gpu_share(held_bytes: int, total_bytes: int) -> float:
    """Return the share of a GPU per trial: 1 over the number of trials that fit, at most 1.

    A trial holds at most `held_bytes` in PyTorch's allocator.
    """
    trials = int(total_bytes // (MEMORY_MARGIN * held_bytes + CONTEXT_BYTES))
    # Ray counts in ten-thousandths of a GPU. Rounding down keeps the sum of all shares at most 1.
    return math.floor(10_000 / max(1, trials)) / 10_000


def resolve_measured_gpu(
    spec: SweepSpec,
    info: DatasetInfo,
    nodes: Sequence[Mapping[str, float]],
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[SweepSpec, tuple[str, ...]]:
    """Replace `resources_per_worker.GPU: measured` by a number.

    The networks of the space (the first four) are measured at the space's largest batch size.

    Returns:
        The spec to plan with, and notes for the plan.
    """
    resources = spec.resources_per_worker
    if resources.GPU != "measured":
        return spec, ()
    note = "resources_per_worker.GPU: measured"
    if not any(node.get("GPU", 0) >= 1 for node in nodes):
        return _with_gpu(spec, 0.0), (f"{note}, but the cluster has no GPU",)
    if spec.workers_per_trial > 1:
        return _with_gpu(spec, 1.0), (f"{note} has no effect: each of a trial's workers gets a whole GPU",)
    speeds, held = [], 0
    try:
        for run in _largest_runs(spec):
            request = calibration.CalibrationRequest(
                run=run, data_path=str(info.path), threads=max(1, int(resources.CPU)), gpu=True
            )
            speeds.append(calibration.calibrate(request, processes=1, progress=progress))
            if speeds[-1].gpu_held_bytes:
                held = max(held, speeds[-1].gpu_held_bytes + _unmeasured_bytes(run, info))
    except UserError as error:
        return _with_gpu(spec, 1.0), (f"{note}: calibration failed ({error}); each trial gets a whole GPU",)
    total = speeds[0].gpu_total_bytes or 0
    if not held or not total:
        return _with_gpu(spec, 1.0), (f"{note}: no memory was measured; each trial gets a whole GPU",)
    share = gpu_share(held, total)
    memory = f"{held / 2**30:.1f} GiB of {total / 2**30:.1f} GiB"
    trials = f"{int(1 / share + 1e-9)} trials fit on a GPU ({share:g} each)"
    return _with_gpu(spec, share), (f"{note}: a trial holds up to {memory}, so with a margin {trials}",)


def gpu_sharing_notes(gpu: float) -> tuple[str, ...]:
    """Return notes for the plan on trials that each get the share `gpu` of a GPU; none for whole GPUs."""
    if not 0 < gpu < 1:
        return ()
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"  # noqa: S108 - NVIDIA's default
    with suppress(OSError, ValueError):
        daemon = int((Path(folder) / "nvidia-cuda-mps-control.pid").read_text("ascii"))
        if psutil.pid_exists(daemon):
            return (
                "trials that share a GPU run on it concurrently: an MPS daemon is running on this machine",
            )
    note = "trials that share a GPU are time-sliced: no MPS daemon is running on this machine"
    return (f"{note} (docs/clusters.md, Sharing a GPU)",)


def _unmeasured_bytes(run: RunConfig, info: DatasetInfo) -> int:
    """Return the size of the training images that a trial keeps on the GPU and the calibration leaves out."""
    from platform.data.image_folders import DATA_NAME
    from platform.training.inputs.augment import device_bytes_per_image

    if info.name == DATA_NAME:  # images in files are not kept on the GPU
        return 0
    images = min(info.train_images, run.data.train_limit or info.train_images)
    unmeasured = max(0, images - calibration.calibration_images(run, gpu=True))
    return unmeasured * device_bytes_per_image(run.augment, info.image_shape)


def _with_gpu(spec: SweepSpec, gpu: float) -> SweepSpec:
    resources = spec.resources_per_worker.model_copy(update={"GPU": gpu})
    return spec.model_copy(update={"resources_per_worker": resources})


def _largest_runs(spec: SweepSpec) -> list[RunConfig]:
    """Return one run per network of the space, at the largest batch size."""
    batch_sizes, names = _values(spec, "batch_size"), _values(spec, "model.name")
    run = spec.base.changed(batch_size=int(max(batch_sizes, default=spec.base.batch_size)))
    if not names:
        return [run]
    return [run.changed(model={"name": name}) for name in names[:_MAX_NETWORKS]]


def _values(spec: SweepSpec, path: str) -> list[Any]:
    """Return all values of a searched setting, or the extremes of a range."""
    nodes = [dimension.node for dimension in spec.dimensions if dimension.path == path]
    return [value for node in nodes if isinstance(node, Choice | Range) for value in node.values_to_check()]
