"""How a sweep begins: its data, its plan, its folder, its observers told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from platform.atomic import discard_unfinished, write_json, write_text
from platform.cores import usable_cores
from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.schema import validate
from platform.space.spec import SweepSpec
from platform.tracking.events import SweepInfo, SweepObserver
from platform.tracking.provenance import collect, command_line
from platform.tracking.sweep_folder import SweepFolder
from platform.tuning.journal.journal import read_journal
from platform.tuning.journal.trial_history import trial_pasts
from platform.tuning.planning.capacity import slots
from platform.tuning.planning.gpu_share import share_out, sharing_notes
from platform.tuning.planning.plan import Plan, make_plan
from platform.tuning.training_stages import Sweep


def find_data(
    spec: SweepSpec,
    *,
    data_dir: Path | None,
    offline: bool,
    quick: bool,
    progress: Callable[[str], None],
) -> tuple[SweepSpec, DatasetInfo]:
    """Return the data set of a sweep; a quick one without CIFAR-10 draws its own pictures.

    Returns:
        The spec, changed to `data.name: generated` where that happened, and the data set in the cache.

    Raises:
        DataNotFound: CIFAR-10 is nowhere and cannot be downloaded, and the sweep is not quick.
        UserError: the place that was named has no such data, or it is damaged.
    """
    from platform.data.catalog import prepare
    from platform.data.dataset import DataNotFound

    def find(spec: SweepSpec) -> DatasetInfo:
        return prepare(spec.base.data, data_dir=data_dir, offline=offline, progress=progress)

    try:
        return spec, find(spec)
    except DataNotFound:
        if not quick:
            raise
    drawn = spec.to_dict()
    drawn["base"]["data"]["name"] = "generated"
    spec = validate(SweepSpec, drawn, source=spec.name)
    return spec, find(spec)


def plan_here(
    spec: SweepSpec,
    info: DatasetInfo,
    *,
    quick: bool,
    calibrate: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Plan a sweep for this machine, or for the cluster that `RAY_ADDRESS` names.

    Args:
        spec: the sweep.
        info: its data set in the cache.
        quick: whether it is a quick one.
        calibrate: measure this machine's speed where it is not known, which takes some seconds.
        progress: told, in words, what takes a while.

    Raises:
        UsageError: a run can never be placed.
        UserError: the cluster does not answer.
    """
    import torch

    if os.environ.get("RAY_ADDRESS"):
        from platform.tuning.execution.cluster_session import session

        with session() as found:
            nodes = found
    else:
        nodes = [{"CPU": float(usable_cores()), "GPU": float(torch.cuda.device_count())}]
    placed, notes = share_out(spec, info, nodes, progress=progress)
    plan = make_plan(
        placed,
        nodes,
        quick=quick,
        train_images=max(1, info.train_images - spec.base.data.validation_size),
    )
    plan = plan.model_copy(
        update={
            **_where_it_trains(plan, spec),
            "spec_digest": spec.digest(),
            "notes": (*plan.notes, *notes, *sharing_notes(plan.search.resources_per_worker.GPU)),
        }
    )
    return _with_estimate(plan, spec, info, calibrate=calibrate, progress=progress)


def _where_it_trains(plan: Plan, spec: SweepSpec) -> dict[str, str]:
    """Return the plan's device and precision, with their reasons.

    The GPU's driver is asked, not CUDA: a CUDA context of this process would hold 0.5 GB of a GPU that is the
    trials', and all of it in EXCLUSIVE_PROCESS mode.
    """
    import torch

    from platform.tracking.provenance import cpu_name, gpu_names
    from platform.training.acceleration.precision import choose

    if plan.search.resources_per_worker.GPU:
        names = gpu_names()
        device, device_reason = names[0] if names else "a GPU", "trials use GPUs"
        precision, reason = spec.base.precision, "asked for"
        if precision == "auto":
            reason = "each trial decides: bf16 from compute capability 8.0 on, else fp32"
    else:
        unused = any(node.GPU for node in plan.nodes)
        device, device_reason = cpu_name(), "trials use no GPU" if unused else "no GPU was found"
        precision, reason = choose(spec.base.precision, torch.device("cpu"))
    return {
        "device": device,
        "device_reason": device_reason,
        "precision": precision,
        "precision_reason": reason,
    }


def _with_estimate(
    plan: Plan, spec: SweepSpec, info: DatasetInfo, *, calibrate: bool, progress: Callable[[str], None]
) -> Plan:
    """Return the plan with its estimate, or with a note why there is none."""
    import torch

    from platform.data.cache import load_split
    from platform.data.splits import train_validation_indices
    from platform.tuning.planning import calibration
    from platform.tuning.planning.estimate import Sizes, estimate, mean_speed
    from platform.tuning.sampling.objectives import networks

    need, node = plan.search.resources_per_worker, plan.nodes[0]
    on_gpu = need.GPU > 0
    if on_gpu and not torch.cuda.device_count():
        note = "no estimate of the time: trials run on GPUs, and this machine has none to measure"
        return plan.model_copy(update={"notes": (*plan.notes, note)})
    questions = [
        calibration.Question(
            run=spec.base.changed(model=model),
            data_path=str(info.path),
            threads=max(1, int(need.CPU)),
            gpu=on_gpu,
        )
        for model in networks(spec)
    ]
    # On a GPU, those that share it; else as many as trials will run beside each other on this machine.
    processes = int(1 / need.GPU + 1e-9) or 1 if on_gpu else slots(need, [node.model_dump()])
    processes = min(processes, plan.search.concurrency * plan.search.workers)
    known = [calibration.cached_speed(question, processes=processes) for question in questions]
    if None in known and not calibrate:
        return plan
    try:
        speed = mean_speed(
            [
                speed or calibration.calibrate(question, processes=processes, progress=progress)
                for question, speed in zip(questions, known, strict=True)
            ]
        )
    except UserError as error:
        return plan.model_copy(update={"notes": (*plan.notes, f"no estimate of the time: {error}")})
    train, validation = train_validation_indices(load_split(info, "train").labels, spec.base.data)
    sizes = Sizes(train=len(train), validation=len(validation), test=info.test_images)
    notes = plan.notes
    if speed.busy:
        notes = (*notes, "the time was estimated while this machine had other work: alone it will be faster")
    found = estimate(plan, speed, sizes, cost_per_hour=spec.cost_per_hour)
    return plan.model_copy(update={"estimate": found, "notes": notes})


def _planned_for(folder: SweepFolder) -> str:
    """Return the digest of the spec that the folder's plan was made for: another one when it is extended."""
    try:
        return str(json.loads(folder.plan.read_text(encoding="utf-8"))["spec_digest"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder.plan} is damaged ({error!r}); restore it from a copy") from None


def open_sweep(
    spec: SweepSpec,
    plan: Plan,
    folder: SweepFolder,
    info: DatasetInfo,
    observer: SweepObserver,
) -> Sweep:
    """Write what the sweep is to its folder (a resumed one has it already), and tell the observer.

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
    if not folder.plan.exists() or _planned_for(folder) != plan.spec_digest:
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
            past=trial_pasts(read_journal(folder.journal)),
        )
    )
    origin = {"sweep": folder.sweep_id, "commit": provenance.git_commit or "", "data_sha256": info.sha256}
    return Sweep(spec=spec, plan=plan, folder=folder, info=info, observer=observer, provenance=origin)
