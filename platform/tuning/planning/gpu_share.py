"""Which share of a GPU a trial takes where the space file says `resources_per_worker.GPU: measured`.

Small networks fill neither the memory nor the units of a large GPU. The calibration sees how much memory a
run holds; as many trials then share a GPU as fit, with room to spare. What is too optimistic is mended while
the sweep runs: a trial that runs out of memory goes on in smaller pieces.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.space.distributions import Choice, Range
from platform.space.spec import SweepSpec
from platform.training.config import RunConfig
from platform.tuning.planning import calibration
from platform.tuning.planning.estimate import Speed

HEADROOM = 1.25
"""Between what calibration saw and what a trial may come to hold: fragments, other optimizers."""
CONTEXT_BYTES = 2**30
"""What a process holds beside PyTorch's own memory: the CUDA context, its kernels, cuDNN and cuBLAS."""
_MOST_NETWORKS = 4


def gpu_share(held_bytes: int, total_bytes: int) -> float:
    """Return the share of a GPU that a trial takes: 1 over the number of trials that fit, 1 at most.

    Args:
        held_bytes: what a trial holds at most in PyTorch's memory.
        total_bytes: the GPU's memory.
    """
    fitting = int(total_bytes // (HEADROOM * held_bytes + CONTEXT_BYTES))
    # Ray counts in ten-thousandths of a GPU; rounded up, the last one would not fit.
    return math.floor(10_000 / max(1, fitting)) / 10_000


def share_out(
    spec: SweepSpec,
    info: DatasetInfo,
    nodes: Sequence[Mapping[str, float]],
    *,
    progress: Callable[[str], None] = lambda _: None,
    measure: Callable[..., Speed] = calibration.calibrate,
) -> tuple[SweepSpec, tuple[str, ...]]:
    """Return the spec to plan with, a measured share in the place of the word, and notes for the plan.

    Networks that the space chooses among are all measured (the first few), at its largest batch size.

    Args:
        spec: the sweep.
        info: its data set in the cache.
        nodes: what each node has.
        progress: told, in words, what takes a while.
        measure: `calibration.calibrate`, or what tests put in its place.
    """
    resources = spec.resources_per_worker
    if resources.GPU != "measured":
        return spec, ()
    share, note = 1.0, "resources_per_worker.GPU: measured"
    if not any(node.get("GPU", 0) >= 1 for node in nodes):
        return _placed(spec, 0.0), (f"{note}, but the cluster has no GPU",)
    if spec.workers_per_trial > 1:
        return _placed(spec, share), (f"{note} has no effect: each of a trial's workers gets a whole GPU",)
    speeds, held = [], 0
    try:
        for run in _largest_runs(spec):
            question = calibration.Question(
                run=run, data_path=str(info.path), threads=max(1, int(resources.CPU)), gpu=True
            )
            speeds.append(measure(question, processes=1, progress=progress))
            if speeds[-1].gpu_held_bytes:
                held = max(held, speeds[-1].gpu_held_bytes + _unmeasured_bytes(run, info))
    except UserError as error:
        return _placed(spec, share), (f"{note}: not possible here ({error}), so each trial gets a whole GPU",)
    total = speeds[0].gpu_total_bytes or 0
    if not held or not total:
        return _placed(spec, share), (f"{note}: nothing was measured, so each trial gets a whole GPU",)
    share = gpu_share(held, total)
    seen = f"a trial holds up to {held / 2**30:.1f} GiB of {total / 2**30:.1f} GiB"
    fit = f"with room to spare {int(1 / share + 1e-9)} of them fit on a GPU ({share:g} each)"
    return _placed(spec, share), (f"{note}: {seen}, so {fit}",)


def sharing_notes(gpu: float) -> tuple[str, ...]:
    """Return what the plan says of trials that take the share `gpu` of a GPU; nothing of whole ones."""
    if not 0 < gpu < 1:
        return ()
    note = (
        "trials that share a GPU run on it at the same time: an MPS daemon is running on this machine"
        if mps_is_running()
        else "trials that share a GPU take turns on it, as no MPS daemon is running on this machine "
        "(docs/clusters.md, Sharing a GPU)"
    )
    return (note,)


def mps_is_running() -> bool:
    """Return whether NVIDIA's multi-process service runs here (its daemon's file of its process id)."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps"  # noqa: S108 - NVIDIA's default
    try:
        return psutil.pid_exists(int((Path(folder) / "nvidia-cuda-mps-control.pid").read_text("ascii")))
    except (OSError, ValueError):
        return False


def _unmeasured_bytes(run: RunConfig, info: DatasetInfo) -> int:
    """Return the size of the training images that a measurement leaves out and a trial keeps on the GPU."""
    from platform.data.image_folders import NAME
    from platform.training.inputs.augment import table_bytes_per_image

    if info.name == NAME:  # images in files stay there
        return 0
    images = min(info.train_images, run.data.train_limit or info.train_images)
    unmeasured = max(0, images - calibration.images_measured(run, gpu=True))
    return unmeasured * table_bytes_per_image(run.augment, info.image_shape)


def _placed(spec: SweepSpec, gpu: float) -> SweepSpec:
    resources = spec.resources_per_worker.model_copy(update={"GPU": gpu})
    return spec.model_copy(update={"resources_per_worker": resources})


def _largest_runs(spec: SweepSpec) -> list[RunConfig]:
    """Return a run of each network that the space may choose, at its largest batch size."""
    sizes, names = _values(spec, "batch_size"), _values(spec, "model.name")
    run = spec.base.changed(batch_size=int(max(sizes, default=spec.base.batch_size)))
    if not names:
        return [run]
    return [run.changed(model={"name": name}) for name in names[:_MOST_NETWORKS]]


def _values(spec: SweepSpec, path: str) -> list[Any]:
    """Return what a setting may be, its extremes where that is a range."""
    nodes = [dimension.node for dimension in spec.dimensions if dimension.path == path]
    return [value for node in nodes if isinstance(node, Choice | Range) for value in node.probes()]
