"""Start a sweep: find its dataset, make its plan, write its folder, notify its observers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from platform.common.atomic import discard_unfinished, read_json, write_json, write_text
from platform.common.cores import usable_cores
from platform.common.errors import UserError
from platform.common.schema import validate
from platform.data.dataset import DatasetInfo
from platform.space.spec import SweepSpec
from platform.tracking.events import SweepInfo, SweepObserver
from platform.tracking.provenance import collect, command_line
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.ledger import replay
from platform.tuning.planning.capacity import worker_slots
from platform.tuning.planning.gpu_share import gpu_sharing_notes, resolve_measured_gpu
from platform.tuning.planning.plan import make_plan
from platform.tuning.planning.records import ImageCounts, Plan, Speed
from platform.tuning.training_stages import Sweep


def find_data(
    spec: SweepSpec,
    *,
    data_dir: Path | None,
    offline: bool,
    quick: bool,
    progress: Callable[[str], None],
) -> tuple[SweepSpec, DatasetInfo]:
    """Return the dataset of a sweep; a quick sweep without CIFAR-10 uses generated images.

    Returns:
        The spec, with `data.name: generated` in that case, and the dataset in the cache.

    Raises:
        DataNotFound: CIFAR-10 was not found and cannot be downloaded, and the sweep is not quick.
        UserError: the given path has no such dataset, or the dataset is damaged.
    """
    from platform.data.catalog import prepare_dataset
    from platform.data.dataset import DataNotFound

    def find(spec: SweepSpec) -> DatasetInfo:
        return prepare_dataset(spec.base.data, data_dir=data_dir, offline=offline, progress=progress)

    try:
        return spec, find(spec)
    except DataNotFound:
        if not quick:
            raise
    document = spec.to_dict()
    document["base"]["data"]["name"] = "generated"
    spec = validate(SweepSpec, document, source=spec.name)
    return spec, find(spec)


def plan_here(
    spec: SweepSpec,
    info: DatasetInfo,
    *,
    quick: bool,
    calibrate: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Plan a sweep for this machine, or for the cluster at `RAY_ADDRESS`.

    Args:
        spec: the sweep.
        info: its dataset in the cache.
        quick: whether it is a quick sweep.
        calibrate: measure this machine's speed if it is not cached, which takes some seconds.
        progress: called with a message before each slow step.

    Raises:
        UsageError: a run can never be placed.
        UserError: the cluster does not answer.
    """
    import torch

    if os.environ.get("RAY_ADDRESS"):
        from platform.tuning.execution.cluster_session import session

        with session() as cluster_nodes:
            nodes = cluster_nodes
    else:
        nodes = [{"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count())}]
    resolved, notes = resolve_measured_gpu(spec, info, nodes, progress=progress)
    plan = make_plan(
        resolved,
        nodes,
        quick=quick,
        train_images=max(1, info.train_images - spec.base.data.validation_size),
    )
    plan = plan.model_copy(
        update={
            **_device_and_precision(plan, spec),
            "spec_digest": spec.digest(),
            "notes": (*plan.notes, *notes, *gpu_sharing_notes(plan.search.resources_per_worker.GPU)),
        }
    )
    return _with_estimate(plan, spec, info, calibrate=calibrate, progress=progress)


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


def _with_estimate(
    plan: Plan, spec: SweepSpec, info: DatasetInfo, *, calibrate: bool, progress: Callable[[str], None]
) -> Plan:
    """Return the plan with its time estimate, or with a note on why there is none."""
    import torch

    from platform.data.cache import load_split
    from platform.data.splits import train_validation_indices
    from platform.tuning.planning.estimate import estimate_sweep

    if plan.search.resources_per_worker.GPU and not torch.cuda.device_count():
        return _with_note(plan, "no time estimate: trials run on GPUs, and this machine has none to measure")
    try:
        speed = _training_speed(plan, spec, info, calibrate=calibrate, progress=progress)
    except UserError as error:
        return _with_note(plan, f"no time estimate: {error}")
    if speed is None:
        return plan
    train, validation = train_validation_indices(load_split(info, "train").labels, spec.base.data)
    images = ImageCounts(train=len(train), validation=len(validation), test=info.test_images)
    estimate = estimate_sweep(plan, speed, images, cost_per_hour=spec.cost_per_hour)
    plan = plan.model_copy(update={"estimate": estimate})
    if speed.busy:
        return _with_note(
            plan, "this machine was busy during the speed measurement: the time estimate is too high"
        )
    return plan


def _training_speed(
    plan: Plan, spec: SweepSpec, info: DatasetInfo, *, calibrate: bool, progress: Callable[[str], None]
) -> Speed | None:
    """Return the mean training speed over the space's networks; None if it is not cached and not measured.

    Raises:
        UserError: the measurement failed.
    """
    from platform.tuning.planning import calibration
    from platform.tuning.planning.estimate import mean_speed
    from platform.tuning.sampling.objectives import networks

    resources = plan.search.resources_per_worker
    requests = [
        calibration.CalibrationRequest(
            run=spec.base.changed(model=model),
            data_path=str(info.path),
            threads=max(1, int(resources.CPU)),
            gpu=resources.GPU > 0,
        )
        for model in networks(spec)
    ]
    # The concurrent workers on one GPU, or on this machine if trials run on the CPU.
    if resources.GPU > 0:
        processes = int(1 / resources.GPU + 1e-9) or 1
    else:
        processes = worker_slots(resources, [plan.nodes[0].model_dump()])
    processes = min(processes, plan.search.concurrency * plan.search.workers)
    cached = [calibration.load_cached_speed(request, processes=processes) for request in requests]
    if None in cached and not calibrate:
        return None
    return mean_speed(
        [
            speed or calibration.calibrate(request, processes=processes, progress=progress)
            for request, speed in zip(requests, cached, strict=True)
        ]
    )


def _with_note(plan: Plan, note: str) -> Plan:
    return plan.model_copy(update={"notes": (*plan.notes, note)})


def _planned_digest(folder: SweepFolder) -> str:
    """Return the digest of the spec in the folder's plan; extending the sweep changes the spec."""
    return str(read_json(folder.plan, remedy="restore it from a copy").get("spec_digest"))


def open_sweep(
    spec: SweepSpec,
    plan: Plan,
    folder: SweepFolder,
    info: DatasetInfo,
    observer: SweepObserver,
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
    if not folder.plan.exists() or _planned_digest(folder) != plan.spec_digest:
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
            history=replay(read_journal(folder.journal)).histories(),
        )
    )
    origin = {"sweep": folder.sweep_id, "commit": provenance.git_commit or "", "data_sha256": info.sha256}
    return Sweep(spec=spec, plan=plan, folder=folder, info=info, observer=observer, provenance=origin)
