"""Sweep a search space: search, confirm, train the champion, export, benchmark, report.

    python -m platform.sweep resnet18_cifar              # a complete sweep
    python -m platform.sweep resnet18_cifar --dry-run    # the plan only; trains and writes nothing
    python -m platform.sweep resnet18_cifar --within 2h  # as large as two hours allow
    python -m platform.sweep resnet18_cifar --quick      # within 5 minutes, on generated images if need be
    python -m platform.sweep --resume                    # continue the newest unfinished sweep
    python -m platform.sweep SPACE --mirror s3://B/PATH  # with a copy of the sweep that survives this machine
    python -m platform.sweep --resume SWEEP --extend 10  # ten more trials, then the later stages again
    python -m platform.sweep --list                      # the existing sweeps
    python -m platform.sweep --export SWEEP t007         # one trial as a model folder for the engine

Progress is printed to stderr, the path of the sweep's folder `runs/<space>-<time>` to stdout.
"""

from __future__ import annotations

import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from platform.common.cores import usable_cores
from platform.common.errors import Interrupted, UserError, describe_os_error, run_command
from platform.console.sweep_command import Arguments, read_command, spec_and_folder
from platform.space.spec import SweepSpec
from platform.tracking.sweep_folder import SweepFolder, find_sweep, new_sweep_folder

if TYPE_CHECKING:
    from platform.console.live import LiveView
    from platform.data.dataset import DatasetInfo
    from platform.tracking.events import Observers
    from platform.tuning.planning.records import Plan
    from platform.tuning.training_stages import Sweep


_QUICK_IMAGES = 500
"""Validation images, and test images, on which a quick sweep evaluates a lower precision."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.sweep") -> int:
    """Run the command."""
    arguments = read_command(sys.argv[1:] if words is None else words, prog=prog)
    if arguments.action.list:
        from platform.console.sweep_list import sweep_list

        print(sweep_list(arguments.output.root.absolute()))
        return 0
    export = arguments.action.export
    if export is None:
        spec, folder = spec_and_folder(arguments)
    from platform.console.live import LiveView
    from platform.tuning.execution.interrupts import end_signals_as_sigint

    with end_signals_as_sigint(), LiveView(quiet=arguments.output.quiet) as view:
        if export is not None:
            return _export_trial(*export, arguments.output.root.absolute(), view)
        return _sweep(arguments, spec, folder, view)


def _sweep(arguments: Arguments, spec: SweepSpec, folder: SweepFolder | None, view: LiveView) -> int:
    """Plan the sweep and, unless it is a dry run, run every stage."""
    from deploy.engine_build.background_build import background_build
    from platform.tuning.extend_sweep import check_test_set_unread, extend, extended_spec
    from platform.tuning.mirror import mirror_uri, mirrored
    from platform.tuning.sampling.warm_start import earlier_trials, write_earlier_trials
    from platform.tuning.start_sweep import (
        available_nodes,
        find_data,
        open_sweep,
        plan_here,
        shorten_here,
        stored_plan,
    )

    resume, output = arguments.resume, arguments.output
    _tracking_uri(arguments, folder)  # a store that cannot be used is refused before anything slow
    mirror = None if arguments.dry_run else mirror_uri(output.mirror, folder)
    ended_before = folder is not None and not folder.unfinished
    if folder is not None and resume.extend is not None:
        check_test_set_unread(folder, again=resume.again)
        spec = extended_spec(spec, resume.extend)
    with view.phase("preparing the dataset"):
        spec, info = find_data(
            spec,
            data_dir=arguments.data.data_dir,
            offline=arguments.data.offline,
            or_generated=arguments.quick,
            progress=view.set_phase,
        )
    with view.phase("planning the sweep"):
        nodes, budget_s, within, speed = available_nodes(), arguments.budget_s(), None, None
        stored = None if folder is None else stored_plan(folder)
        if stored is not None and resume.extend is not None:
            within = stored.within and stored.within.model_copy(update={"lifted": True})
            stored = None
        if budget_s is not None:
            spec, within, speed = shorten_here(
                spec,
                info,
                nodes,
                budget_s=budget_s,
                or_smallest=arguments.quick,
                used_before_s=_seconds_since_start,
                progress=view.set_phase,
            )
        plan = plan_here(
            spec, info, nodes, within=within, speed=speed, stored=stored, progress=view.set_phase
        )
    _show_plan(arguments, plan, info, folder, view)
    earlier = None
    if arguments.warm_start is not None:
        earlier = earlier_trials(find_sweep(arguments.warm_start, root=output.root), spec)
    if arguments.dry_run:
        return 0
    folder = folder or new_sweep_folder(output.root, spec.name)
    if earlier is not None:
        write_earlier_trials(folder, earlier)
    if resume.extend is not None:
        extend(folder, spec)
    # With an existing test accuracy, --again measures it again only on a finished sweep without --extend.
    again = resume.again and (not folder.test.exists() or (ended_before and resume.extend is None))
    observers = _observers(arguments, folder, view)
    engine_needed = resume.extend is not None or not folder.benchmark.exists()
    with (
        mirrored(folder, mirror, warn=view.warn),
        _recorded_outcome(folder, observers, again=resume.again),
        background_build(view.set_background, needed=engine_needed),
    ):
        with view.phase("opening MLflow"):
            sweep = open_sweep(spec, plan, folder, info, observers)
        _train(sweep, view)
        _evaluate_and_export(sweep, arguments, view, again=again)
    view.close()
    from platform.console.summary import final_summary

    final_summary(folder, tracking_uri=_tracking_uri(arguments, folder), quiet=output.quiet)
    return 0


def _seconds_since_start() -> float:
    """Return the age of this process: what a person has waited since the command."""
    import psutil

    return time.time() - psutil.Process().create_time()


def _train(sweep: Sweep, view: LiveView) -> None:
    """Run the stages that need Ray: search, confirmation, final training."""
    from platform.tuning import training_stages
    from platform.tuning.execution.cluster_session import session
    from platform.tuning.final_model import is_trained

    if is_trained(sweep.folder, sweep.spec):
        return
    _measure_networks(sweep, view)
    first = sweep.plan.nodes[0]
    view.set_phase("starting Ray")
    with session(num_cpus=int(first.CPU), num_gpus=int(first.GPU)):
        trials = training_stages.search(sweep)
        champion = training_stages.confirm(sweep, trials)
        training_stages.train_final(sweep, champion, trials)


def _measure_networks(sweep: Sweep, view: LiveView) -> None:
    """Measure the size or latency of each network before the search, if the space has such objectives."""
    from deploy.untrained_latency import untrained_latency_ms
    from platform.models.config import ModelConfig
    from platform.tuning.sampling.objectives import measure_architectures

    def latency_ms(model: ModelConfig) -> float:
        return untrained_latency_ms(
            model,
            input_shape=sweep.info.image_shape,
            num_classes=len(sweep.info.class_names),
            progress=view.set_phase,
            warn=view.warn,
        )

    measure_architectures(
        sweep.spec, sweep.folder, sweep.info, latency_ms=latency_ms, progress=view.set_phase
    )


def _evaluate_and_export(sweep: Sweep, arguments: Arguments, view: LiveView, *, again: bool) -> None:
    """Evaluate the final model, export, benchmark and register it, and write the report."""
    from platform.reporting.page import write_report
    from platform.tracking.results import read_results
    from platform.tracking.trial_findings import findings_by_trial, grouped_findings
    from platform.tuning import final_model

    with view.phase(f"evaluating on the test split{' again' if again else ''}"):
        final_model.evaluate_on_test_set(sweep, again=again, progress=view.set_phase)
    with view.phase("exporting to ncnn"):
        _export(sweep, view)
    with view.phase("benchmarking on this machine"):
        _benchmark(sweep, view)
    with view.phase("registering the champion in MLflow"):
        registered = final_model.register(
            sweep, tracking_uri=_tracking_uri(arguments, sweep.folder), progress=view.set_phase
        )
    if registered is not None:
        name, choice = f"{registered.model} version {registered.version}", registered.choice
        because = f", not champion: {choice.reason}" if choice.reason else ""
        view.console.print(f"registered in MLflow as {name}, alias {choice.alias}{because}", highlight=False)
    with view.phase("writing the report"):
        sweep.folder.set_state("finished")
        sweep.observer.trials_diagnosed(findings_by_trial(grouped_findings(read_results(sweep.folder))))
        sweep.observer.artifact_written(write_report(sweep.folder))


def _export(sweep: Sweep, view: LiveView) -> None:
    """Export the final model in fp32 and in the fastest precision that keeps the accuracy."""
    from deploy.champion import export_champion
    from platform.tuning import extend_sweep, final_model

    folder, quick = sweep.folder, sweep.plan.quick
    if (folder.export / "model.json").exists():
        return
    if quick:
        view.console.print(
            f"quick export: int8 only, not tuned, accuracy measured on {_QUICK_IMAGES} images",
            highlight=False,
        )
    refused = export_champion(
        final_model.final_model_path(folder),
        folder.export,
        info=sweep.info,
        precisions=("int8",) if quick else None,
        tuned=not quick,
        most_images=_QUICK_IMAGES if quick else None,
        source={
            "sweep": folder.sweep_id,
            "run": extend_sweep.final_runs(folder)[-1].trial_id,
            "commit": sweep.provenance["commit"],
            "test_accuracy": final_model.evaluate_on_test_set(sweep)["accuracy"],
        },
        progress=view.set_phase,
    )
    for refusal in refused.values():
        view.console.print(refusal, highlight=False, markup=False)


def _benchmark(sweep: Sweep, view: LiveView) -> None:
    """Measure the model folders with the C++ engine, which is built on first use."""
    from deploy.engine_build.engine import run_benchmark

    if sweep.folder.benchmark.exists():
        return
    threads = sorted({1, min(2, usable_cores())})
    run_benchmark(
        sweep.folder.export,
        *sweep.folder.lower_precisions,
        threads=threads,
        json_path=sweep.folder.benchmark,
        repetitions=50 if sweep.plan.quick else 200,
        min_time_s=0.5 if sweep.plan.quick else 1.0,
        progress=view.set_phase,
    )


def _export_trial(name: str, trial_id: str, root: Path, view: LiveView) -> int:
    """Export one trial of a sweep to a model folder and print its path."""
    from deploy.conversion.parity import MIN_IMAGES
    from deploy.export import export_model
    from platform.data.cache import load_split, open_info
    from platform.tuning.journal.trial_model import find_task, trial_model

    folder = find_sweep(name, root=root)
    task = find_task(folder, trial_id)
    out = folder.path / "exports" / trial_id
    with view.phase(f"exporting {trial_id}"), trial_model(folder, task) as model:
        info = open_info(Path(task.data_path))
        export_model(
            model,
            out,
            parity_images=load_split(info, "test").images[:MIN_IMAGES],
            parity_data=info.label,
            source={"sweep": folder.sweep_id, "run": trial_id, "commit": task.provenance.get("commit")},
            progress=view.set_phase,
        )
    view.close()
    print(out)
    return 0


def _show_plan(
    arguments: Arguments, plan: Plan, info: DatasetInfo, folder: SweepFolder | None, view: LiveView
) -> None:
    """Print the plan, or what is left of a resumed sweep; with --dry-run --quiet, the plan as JSON."""
    from platform.console.plan_table import plan_table, remaining_table
    from platform.tracking.provenance import without_credentials

    if arguments.dry_run and arguments.output.quiet:
        print(plan.model_dump_json(indent=2))
        return
    if folder is not None:
        view.console.print(remaining_table(plan, folder), crop=False)
        return
    images = f"{info.label}: {info.train_images:,} training images, {info.test_images:,} test images"
    table = plan_table(
        plan,
        data=images,
        generated=info.name == "generated",
        folder=None if arguments.dry_run else arguments.output.root.absolute(),
        tracking_uri=without_credentials(_tracking_uri(arguments, folder)),
    )
    view.console.print(table, crop=False)


def _observers(arguments: Arguments, folder: SweepFolder, view: LiveView) -> Observers:
    from platform.tracking.events import Observers
    from platform.tracking.mlflow_runs import MlflowObserver
    from platform.tracking.parquet_tables import TableWriter
    from platform.tuning.execution.cluster_nodes import node_loads

    mlflow = MlflowObserver(_tracking_uri(arguments, folder), node_loads=node_loads)
    return Observers([TableWriter(folder), mlflow, view])


@contextmanager
def _recorded_outcome(folder: SweepFolder, observers: Observers, *, again: bool) -> Iterator[None]:
    """Record the outcome of the sweep, and add the command that resumes it to the error message."""
    from platform.tracking.events import SweepOutcome
    from platform.tuning.final_model import final_metrics

    root = folder.path.parent
    where = "" if root == Path("runs").absolute() else f" --runs {shlex.quote(str(root))}"
    resume_command = (
        f"python -m platform.sweep --resume {folder.sweep_id}{where}{' --again' if again else ''}"
    )
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        folder.set_state("interrupted")
        observers.sweep_ended(SweepOutcome(status="interrupted", message=f"resume with: {resume_command}"))
        raise Interrupted(f"interrupted; all results are saved. Resume with:\n  {resume_command}") from None
    except Exception as error:  # noqa: BLE001 - its traceback is in a file
        cause = _user_error(error, folder)
        with suppress(OSError, UserError):  # on a full disk the message is more important
            folder.set_state("failed", str(cause))
            observers.sweep_ended(SweepOutcome(status="failed", message=str(cause)))
        raise type(cause)(f"{cause}\nafter fixing that, resume with: {resume_command}") from None
    observers.sweep_ended(SweepOutcome(status="finished", metrics=final_metrics(folder)))


def _user_error(error: Exception, folder: SweepFolder) -> UserError:
    """Return the error as a message for the user; the traceback of an unexpected one is in error.log."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and (text := describe_os_error(error)):
        return UserError(text)
    trace = "".join(traceback.format_exception(error))
    where = str(folder.path / "error.log")
    try:
        Path(where).write_text(trace, encoding="utf-8")
    except OSError:
        where = f"below\n{trace}"
    first, *_ = str(error).strip().splitlines() or [""]
    return UserError(f"unexpected {type(error).__name__}: {first[:300]}; traceback: {where}")


def _tracking_uri(arguments: Arguments, folder: SweepFolder | None) -> str:
    from platform.tracking.mlflow_store import resolve_tracking_uri

    return resolve_tracking_uri(arguments.output.tracking_uri, folder.path if folder else None)


if __name__ == "__main__":
    run_command(main)
