"""Start a sweep: find its dataset, make its plan, write its folder, notify its observers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from platform.common.atomic import discard_unfinished, read_json, write_json, write_text
from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.common.schema import validate
from platform.data.dataset import DatasetInfo
from platform.space.spec import SweepSpec
from platform.tracking.events import SweepInfo, SweepObserver
from platform.tracking.provenance import collect, command_line
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.journal.journal import read_ledger
from platform.tuning.planning.capacity import NodeResources, worker_slots
from platform.tuning.planning.estimate import estimate_sweep, mean_speed
from platform.tuning.planning.gpu_share import gpu_sharing_notes, resolve_measured_gpu
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Plan, Speed, TimeBudget
from platform.tuning.training_stages import Sweep

_PROBE_BATCH = 16
"""Batch size of the first speed measurement for a time budget; short runs have small batches."""


def find_data(
    spec: SweepSpec,
    *,
    data_dir: Path | None,
    offline: bool,
    or_generated: bool,
    progress: Callable[[str], None],
) -> tuple[SweepSpec, DatasetInfo]:
    """Return the dataset of a sweep, from `data_dir` or else from the usual places.

    `offline` downloads nothing. `or_generated` uses generated images if CIFAR-10 is not available.

    Returns:
        The spec, with `data.name: generated` in that case, and the dataset in the cache.

    Raises:
        DataNotFound: CIFAR-10 was not found and cannot be downloaded.
        UserError: the given path has no such dataset, or the dataset is damaged.
    """
    from platform.data.catalog import prepare_dataset
    from platform.data.dataset import DataNotFound

    find = partial(prepare_dataset, data_dir=data_dir, offline=offline, progress=progress)
    try:
        return spec, find(spec.base.data)
    except DataNotFound:
        if not or_generated:
            raise
    document = spec.to_dict()
    document["base"]["data"]["name"] = "generated"
    spec = validate(SweepSpec, document, source=spec.name)
    return spec, find(spec.base.data)


def available_nodes() -> list[NodeResources]:
    """Return the resources of this machine, or of each node of the cluster at `RAY_ADDRESS`.

    Raises:
        UserError: the cluster does not answer.
    """
    import torch

    if os.environ.get("RAY_ADDRESS"):
        from platform.tuning.execution.cluster_session import session

        with session() as nodes:
            return list(nodes)
    return [{"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count())}]


def shorten_here(
    spec: SweepSpec,
    info: DatasetInfo,
    nodes: Sequence[NodeResources],
    *,
    budget_s: float,
    or_smallest: bool,
    used_before_s: Callable[[], float],
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[SweepSpec, TimeBudget, Speed]:
    """Shorten a sweep so that it ends on these nodes within a time, from the measured speed.

    The time, `budget_s`, starts with the command; `used_before_s` returns the seconds since then. If it is
    too short and `or_smallest` is set, the sweep takes as much as the smallest useful one needs.

    Raises:
        UsageError: the time is too short, without `or_smallest`; the message has the shortest sensible one.
        UserError: the speed of this machine cannot be measured.
    """
    from platform.tuning.planning.time_budget import TooLittleTimeError, fit_to_time

    resolved, _ = resolve_measured_gpu(spec, info, nodes, progress=progress)
    images = _image_counts(spec, info)

    def fit(batch_size: int) -> tuple[SweepSpec, TimeBudget, Speed]:
        plan = make_plan(resolved, nodes, train_images=images.train)
        measured = resolved.base.changed(batch_size=batch_size)
        try:
            speed = _training_speed(plan, spec, measured, info, progress=progress)
        except UserError as error:
            raise UserError(
                f"--within needs the speed of a trial: {error}; set trials and base.epochs with --set instead"
            ) from None
        used_s, total_s = used_before_s(), budget_s
        try:
            shorter, choices = fit_to_time(resolved, nodes, speed, images, available_s=total_s - used_s)
        except TooLittleTimeError as error:
            if not or_smallest:
                raise
            total_s = used_s + error.least_s
            shorter, choices = fit_to_time(resolved, nodes, speed, images, available_s=error.least_s)
        within = TimeBudget(
            budget_s=total_s, used_before_s=used_before_s(), choices=choices, full_digest=spec.digest()
        )
        return shorter, within, speed

    probe = min(_PROBE_BATCH, spec.base.batch_size)
    shorter, within, speed = fit(probe)
    if shorter.base.batch_size != probe:  # the speed depends on the batch size
        shorter, within, speed = fit(shorter.base.batch_size)
    values = shorter.to_dict() | {"resources_per_worker": spec.to_dict()["resources_per_worker"]}
    return validate(SweepSpec, values, source=spec.name), within, speed


def plan_here(
    spec: SweepSpec,
    info: DatasetInfo,
    nodes: Sequence[NodeResources],
    *,
    within: TimeBudget | None = None,
    speed: Speed | None = None,
    stored: Plan | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Plan a sweep for these nodes; with a time budget, `spec` is already shortened.

    The plan of a resumed sweep, `stored`, keeps its time budget and its estimate. Otherwise, without `speed`,
    this machine's speed is measured, which takes some seconds if it is not cached.

    Raises:
        UsageError: a run can never be placed.
    """
    resolved, notes = resolve_measured_gpu(spec, info, nodes, progress=progress)
    plan = make_plan(
        resolved,
        nodes,
        within=within if stored is None else stored.within,
        train_images=max(1, info.train_images - spec.base.data.validation_size),
    )
    notes += gpu_sharing_notes(plan.search.resources_per_worker.GPU)
    estimate = None if stored is None else stored.estimate
    if estimate is None:
        try:
            speed = speed or _training_speed(plan, spec, spec.base, info, progress=progress)
            counts = _image_counts(spec, info)
            estimate = estimate_sweep(plan, speed, counts, cost_per_hour=spec.cost_per_hour)
        except UserError as error:
            notes += (f"no time estimate: {error}",)
    return plan.model_copy(
        update={
            **_device_and_precision(plan, spec),
            "spec_digest": spec.digest(),
            "notes": (*plan.notes, *notes),
            "estimate": estimate,
        }
    )


def stored_plan(folder: SweepFolder) -> Plan | None:
    """Return the plan in the folder of a sweep; None if there is none or another version wrote it."""
    if not folder.plan.exists():
        return None
    document = read_json(folder.plan, remedy="restore it from a copy")
    with suppress(ValidationError):
        return Plan.model_validate({name: document[name] for name in Plan.model_fields if name in document})
    return None


def _device_and_precision(plan: Plan, spec: SweepSpec) -> dict[str, str]:
    """Return the plan's device and precision, with their reasons.

    The GPU name comes from the driver, not from CUDA: a CUDA context of this process would take 0.5 GB of
    GPU memory from the trials, and the whole GPU in EXCLUSIVE_PROCESS mode.
    """
    import torch

    from platform.tracking.provenance import cpu_name, gpu_names
    from platform.training.acceleration.precision import choose_precision

    if plan.search.resources_per_worker.GPU:
        names = gpu_names()
        device, device_reason = names[0] if names else "a GPU", "trials use GPUs"
        precision, precision_reason = spec.base.precision, "as configured"
        if precision == "auto":
            precision_reason = "resolved per trial: bf16 from compute capability 8.0, else fp32"
    else:
        unused_gpu = any(node.GPU for node in plan.nodes)
        device, device_reason = cpu_name(), "trials use no GPU" if unused_gpu else "no GPU found"
        precision, precision_reason = choose_precision(spec.base.precision, torch.device("cpu"))
    return {
        "device": device,
        "device_reason": device_reason,
        "precision": precision,
        "precision_reason": precision_reason,
    }


def _image_counts(spec: SweepSpec, info: DatasetInfo) -> ImageCounts:
    from platform.data.cache import load_split
    from platform.data.splits import train_validation_indices

    train, validation = train_validation_indices(load_split(info, "train").labels, spec.base.data)
    return ImageCounts(train=len(train), validation=len(validation), test=info.test_images)


def _training_speed(
    plan: Plan, spec: SweepSpec, run: RunConfig, info: DatasetInfo, *, progress: Callable[[str], None]
) -> Speed:
    """Return the mean speed of `run` over the space's networks, measured if it is not cached.

    Raises:
        UserError: the measurement failed, or trials run on GPUs and this machine has none.
    """
    import torch

    from platform.tuning.planning import calibration
    from platform.tuning.sampling.objectives import networks

    resources = plan.search.resources_per_worker
    if resources.GPU > 0 and not torch.cuda.device_count():
        raise UserError("trials run on GPUs, and this machine has none to measure")
    # The concurrent workers on one GPU, or on this machine if trials run on the CPU.
    if resources.GPU > 0:
        processes = int(1 / resources.GPU + 1e-9) or 1
    else:
        processes = worker_slots(resources, [plan.nodes[0].model_dump()]) or 1  # a head often has 0 CPUs
    processes = min(processes, plan.search.concurrency * plan.search.workers)
    requests = [
        calibration.CalibrationRequest(
            run=run.changed(model=model),
            data_path=str(info.path),
            threads=max(1, int(resources.CPU)),
            gpu=resources.GPU > 0,
        )
        for model in networks(spec)
    ]
    return mean_speed(
        [calibration.calibrate(request, processes=processes, progress=progress) for request in requests]
    )


def open_sweep(
    spec: SweepSpec, plan: Plan, folder: SweepFolder, info: DatasetInfo, observer: SweepObserver
) -> Sweep:
    """Write the spec and the plan to the sweep's folder unless they exist, and notify the observer.

    Raises:
        UserError: the tracking store does not answer.
    """
    provenance = collect()
    document = {
        **plan.model_dump(mode="json"),
        "sweep_id": folder.sweep_id,
        "data": {"label": info.label, "sha256": info.sha256, "path": str(info.path)},
        "provenance": provenance.as_dict(),
    }
    discard_unfinished(folder.path)
    folder.set_state("running")
    stored = stored_plan(folder)
    if stored is None or stored.spec_digest != plan.spec_digest:  # extending the sweep changes the spec
        write_json(folder.plan, document)
    if not folder.spec.exists():
        write_text(folder.spec, spec.to_yaml())
    observer.sweep_started(
        SweepInfo(
            sweep_id=folder.sweep_id,
            space=spec.name,
            folder=folder.path,
            command=command_line(),
            plan=document,
            tags={
                **provenance.as_tags(),
                "data_label": info.label,
                "data_sha256": info.sha256,
                "quick": str(plan.quick).lower(),
                "generated_data": str(info.name == "generated").lower(),
            },
            trials=plan.search.runs,
            history=read_ledger(folder.journal).histories(),
        )
    )
    origin = {"sweep": folder.sweep_id, "commit": provenance.git_commit or "", "data_sha256": info.sha256}
    return Sweep(spec=spec, plan=plan, folder=folder, info=info, observer=observer, provenance=origin)
