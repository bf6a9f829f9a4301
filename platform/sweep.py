"""Sweep a search space and hand over the winner: trained, confirmed, exported, timed, reported.

    python -m platform.sweep resnet18_cifar              # the whole thing
    python -m platform.sweep resnet18_cifar --dry-run    # its plan; nothing is started or written
    python -m platform.sweep resnet18_cifar --quick      # every stage in a few minutes; figures mean nothing
    python -m platform.sweep --resume                    # go on with the newest sweep that has not finished

Progress goes to stderr; the sweep's folder, `runs/<space>-<time>`, to stdout.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from platform.errors import Interrupted, UsageError, UserError, run_command
from platform.tracking.folder import SweepFolder, find_sweep, latest, new_sweep_folder
from platform.tuning.quick import quick_variant
from platform.tuning.space import SweepSpec, changed_fields, load_space, load_spec

if TYPE_CHECKING:
    from platform.console.live import LiveView
    from platform.data.dataset import DatasetInfo
    from platform.tracking.events import Observers
    from platform.tuning.plan import Plan
    from platform.tuning.stages import Sweep


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Sweep a search space: search, confirm, train the champion, export, benchmark, report."""

    space: Annotated[str | None, tyro.conf.Positional] = None
    """A name in search_spaces/, or the path of a .yaml file."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan and stop."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Every stage, hardly any training; without CIFAR-10 at hand, on generated pictures."""
    settings: Annotated[
        tuple[tuple[str, ...], ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", metavar="KEY=VALUE ..."),
    ] = ()
    """Settings of the space file to change: trials=12 base.epochs=6 ..."""
    resume: str | None = None
    """Go on with an interrupted sweep: its folder or id; the newest one if none is named."""
    data_dir: Path | None = None
    """Where the images are; default: $CIFAR10_DIR, else the cache, else a download."""
    offline: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Download nothing."""
    output: Path = Path("runs")
    """Where sweeps are kept."""
    tracking_uri: str | None = None
    """MLflow's store; default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."""
    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """No progress, only the result."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.sweep", args=_with_resume_value(sys.argv[1:]))
    spec, folder = _what_to_sweep(arguments)
    from platform.console.live import LiveView
    from platform.tuning.interrupts import sigterm_as_sigint

    with sigterm_as_sigint(), LiveView(quiet=arguments.quiet) as view:
        return _sweep(arguments, spec, folder, view)


def _sweep(arguments: Arguments, spec: SweepSpec, folder: SweepFolder | None, view: LiveView) -> int:
    """Plan, and unless that was all, run every stage."""
    from platform.tuning.opening import find_data, open_sweep, plan_here

    quick = arguments.quick or _was_quick(folder)
    with view.phase("finding the data"):
        spec, info = find_data(
            spec,
            data_dir=arguments.data_dir,
            offline=arguments.offline,
            quick=quick,
            progress=view.set_phase,
        )
    with view.phase("looking at the machine"):
        plan = plan_here(spec, info, quick=quick)
    _show_plan(arguments, plan, info, view)
    if arguments.dry_run:
        return 0
    folder = folder or new_sweep_folder(arguments.output, spec.name)
    observers = _observers(arguments, folder, view)
    with _ending(folder, observers):
        with view.phase("opening MLflow"):
            sweep = open_sweep(spec, plan, folder, info, observers)
        _train(sweep, view)
        _hand_over(sweep, arguments, view)
    view.close()
    from platform.console.summary import final_summary

    final_summary(folder, tracking_uri=_tracking_uri(arguments), quiet=arguments.quiet)
    return 0


def _train(sweep: Sweep, view: LiveView) -> None:
    """Everything that needs Ray: search, confirmation, the final run."""
    from platform.tuning import stages
    from platform.tuning.cluster_session import session
    from platform.tuning.finish import is_trained

    if is_trained(sweep.folder):
        return
    first = sweep.plan.nodes[0]
    view.set_phase("starting Ray")
    with session(num_cpus=int(first.CPU), num_gpus=int(first.GPU)):
        trials = stages.search(sweep)
        champion = stages.confirm(sweep, trials)
        stages.train_final(sweep, champion, trials)


def _hand_over(sweep: Sweep, arguments: Arguments, view: LiveView) -> None:
    """From the final model to its figures: the test split, ncnn, the engine, the registry, the report."""
    from platform.reporting.page import write_report
    from platform.tuning import finish

    with view.phase("reading the test split, once"):
        finish.measure(sweep)
    with view.phase("exporting to ncnn"):
        _export(sweep, view)
    with view.phase("benchmarking on this machine"):
        _benchmark(sweep, view)
    with view.phase("registering the champion in MLflow"):
        finish.register(sweep, tracking_uri=_tracking_uri(arguments))
    with view.phase("writing the report"):
        sweep.folder.set_state("finished")
        sweep.observer.artifact_written(write_report(sweep.folder.path), name="report")


def _export(sweep: Sweep, view: LiveView) -> None:
    """Convert the final model to a model folder, checked on test images."""
    from deploy.export import export_model
    from deploy.parity import MIN_IMAGES
    from platform.data.cache import load_split
    from platform.tuning import finish

    folder = sweep.folder
    if (folder.export / "model.json").exists():
        return
    images = load_split(sweep.info, "test").images[:MIN_IMAGES]
    export_model(
        finish.final_model(folder),
        folder.export,
        parity_images=images,
        parity_data=sweep.info.label,
        source={
            "sweep": folder.sweep_id,
            "run": "final",
            "commit": sweep.provenance["commit"],
            "test_accuracy": finish.measure(sweep)["accuracy"],
        },
        progress=view.set_phase,
    )
    sweep.observer.artifact_written(folder.export, name="export")


def _benchmark(sweep: Sweep, view: LiveView) -> None:
    """Time the model folder with the project's engine, which is built on first use."""
    from deploy.engine import run_benchmark

    if sweep.folder.benchmark.exists():
        return
    threads = sorted({1, min(2, int(sweep.plan.nodes[0].CPU))})
    run_benchmark(
        sweep.folder.export, threads=threads, json_path=sweep.folder.benchmark, progress=view.set_phase
    )
    sweep.observer.artifact_written(sweep.folder.benchmark, name="benchmark")


def _what_to_sweep(arguments: Arguments) -> tuple[SweepSpec, SweepFolder | None]:
    """Return the spec, and the folder of a sweep that is resumed."""
    settings = [text for group in arguments.settings for text in group]
    if arguments.resume is None:
        if arguments.space is None:
            from platform.tuning.space import find_spaces

            names = ", ".join(find_spaces())
            raise UsageError(f"name a search space: python -m platform.sweep SPACE; there are: {names}")
        spec = load_space(arguments.space, overrides=settings)
        return (quick_variant(spec) if arguments.quick else spec), None
    newest = arguments.resume == "latest"
    folder = (
        latest(arguments.output, unfinished=True)
        if newest
        else find_sweep(arguments.resume, root=arguments.output)
    )
    spec = load_spec(folder.path)
    if arguments.space is not None or settings:
        _refuse_changes(arguments, settings, spec, folder)
    return spec, folder


def _refuse_changes(
    arguments: Arguments, settings: Sequence[str], spec: SweepSpec, folder: SweepFolder
) -> None:
    """A resumed sweep goes on as it began; UsageError names what differs."""
    given = load_space(arguments.space or spec.name, overrides=settings)
    if arguments.quick or _was_quick(folder):
        given = quick_variant(given)
    changed = [name for name in changed_fields(spec, given) if name != "base.data.name"]
    if changed:
        raise UsageError(
            f"a resumed sweep goes on as it began, but {', '.join(changed)} changed since {folder.sweep_id} "
            f"began; undo that, or start a new sweep without --resume"
        )


def _show_plan(arguments: Arguments, plan: Plan, info: DatasetInfo, view: LiveView) -> None:
    from platform.console.plan_table import plan_table

    images = f"{info.label}: {info.train_images:,} training images, {info.test_images:,} test images"
    view.console.print(
        plan_table(
            plan,
            data=images,
            generated=info.name == "generated",
            folder=None if arguments.dry_run else arguments.output.absolute(),
            tracking_uri=_tracking_uri(arguments),
        )
    )


def _observers(arguments: Arguments, folder: SweepFolder, view: LiveView) -> Observers:
    from platform.tracking.events import Observers
    from platform.tracking.mlflow_runs import MlflowObserver
    from platform.tracking.tables import TableWriter

    return Observers([TableWriter(folder), MlflowObserver(_tracking_uri(arguments)), view])


@contextmanager
def _ending(folder: SweepFolder, observers: Observers) -> Iterator[None]:
    """Whatever ends the sweep, say so in its folder and to its observers, and to the user how to go on."""
    from platform.tracking.events import SweepOutcome
    from platform.tuning.finish import figures

    root = folder.path.parent
    where = "" if root == Path("runs").absolute() else f" --output {shlex.quote(str(root))}"
    again = f"python -m platform.sweep --resume {folder.sweep_id}{where}"
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        folder.set_state("interrupted")
        observers.sweep_ended(SweepOutcome(status="interrupted", message=f"go on with: {again}"))
        raise Interrupted(f"stopped; everything so far is kept. Go on with:\n  {again}") from None
    except BaseException as error:
        folder.set_state("failed", str(error))
        observers.sweep_ended(SweepOutcome(status="failed", message=str(error)))
        if isinstance(error, UserError):
            raise type(error)(f"{error}\nwhen that is mended, go on with: {again}") from None
        raise
    observers.sweep_ended(SweepOutcome(status="finished", metrics=figures(folder)))


def _was_quick(folder: SweepFolder | None) -> bool:
    from platform.tracking.results import read_results

    return folder is not None and read_results(folder).quick


def _tracking_uri(arguments: Arguments) -> str:
    from platform.tracking.mlflow_store import resolve_tracking_uri

    return resolve_tracking_uri(arguments.tracking_uri)


def _with_resume_value(words: Sequence[str]) -> list[str]:
    """`--resume` alone means the newest sweep."""
    done = []
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        done.append(word)
        if word == "--resume" and following.startswith("-"):
            done.append("latest")
    return done


if __name__ == "__main__":
    run_command(main)
