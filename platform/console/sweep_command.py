"""The command line of a sweep, and which sweep it means; no heavy library is imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.errors import UsageError
from platform.space.quick import quick_variant
from platform.space.space_files import SweepSpec, changed_fields, find_spaces, load_space, load_spec
from platform.tracking.sweep_folder import SweepFolder, find_sweep, latest

_NEWEST = "latest"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Sweep a search space: search, confirm, train the champion, export, benchmark, report."""

    space: Annotated[str | None, tyro.conf.Positional] = None
    """A name in search_spaces/, or the path of a .yaml file."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan, with an estimate of its time, and stop."""
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
    extend: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """With --resume: N more search trials; what follows the search is done again where it changes."""
    again: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """With --resume: allow the test split to be opened once more."""
    warm_start: Annotated[str | None, tyro.conf.arg(metavar="SWEEP")] = None
    """Let the sampler learn from the finished trials of an earlier sweep first."""
    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the sweeps in --output with their state and best accuracy."""
    export: Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="SWEEP TRIAL")] = None
    """Export one trial of a sweep to a model folder for the engine."""
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

    def root(self) -> Path:
        """Return where sweeps are kept, absolute."""
        return self.output.absolute()


def read_command(words: Sequence[str]) -> Arguments:
    """Read the words of the command line.

    Raises:
        UsageError: words that do not go together.
    """
    arguments = tyro.cli(Arguments, prog="python -m platform.sweep", args=_with_resume_value(words))
    needing = [
        name for name, given in (("--extend", arguments.extend), ("--again", arguments.again)) if given
    ]
    if needing and arguments.resume is None:
        raise UsageError(f"{needing[0]} goes on with a sweep: give --resume, or --resume SWEEP, with it")
    if arguments.warm_start is not None and arguments.resume is not None:
        raise UsageError("--warm-start is for a new sweep: a resumed one goes on with what it has learned")
    return arguments


def what_to_sweep(arguments: Arguments) -> tuple[SweepSpec, SweepFolder | None]:
    """Return the spec, and the folder of a sweep that is resumed.

    Raises:
        UsageError: there is no such space, there are mistakes in it, or it has changed since the sweep began.
        UserError: there is no such sweep.
    """
    settings = [text for group in arguments.settings for text in group]
    if arguments.resume is None:
        if arguments.space is None:
            names = ", ".join(find_spaces())
            raise UsageError(f"name a search space: python -m platform.sweep SPACE; there are: {names}")
        spec = load_space(arguments.space, overrides=settings)
        return (quick_variant(spec) if arguments.quick else spec), None
    ended_too = arguments.extend is not None or arguments.again
    folder = (
        latest(arguments.output, unfinished=not ended_too)
        if arguments.resume == _NEWEST
        else find_sweep(arguments.resume, root=arguments.output)
    )
    spec = load_spec(folder.path)
    from platform.tuning.journal.journal import refuse_running

    refuse_running(folder.journal)
    if arguments.space is not None or settings:
        _refuse_changes(arguments, settings, spec, folder)
    return spec, folder


def was_quick(folder: SweepFolder | None) -> bool:
    """Return whether a sweep that is resumed was a quick one."""
    if folder is None:
        return False
    from platform.tracking.results import read_results

    return read_results(folder).quick


def _refuse_changes(
    arguments: Arguments, settings: Sequence[str], spec: SweepSpec, folder: SweepFolder
) -> None:
    """A resumed sweep goes on as it began; UsageError names what differs."""
    given = load_space(arguments.space or spec.name, overrides=settings)
    if arguments.quick or was_quick(folder):
        given = quick_variant(given)
    changed = [name for name in changed_fields(spec, given) if name != "base.data.name"]
    if changed:
        raise UsageError(
            f"a resumed sweep goes on as it began, but {', '.join(changed)} changed since {folder.sweep_id} "
            f"began; undo that, or start a new sweep without --resume"
        )


def _with_resume_value(words: Sequence[str]) -> list[str]:
    """`--resume` alone means the newest sweep."""
    done = []
    for position, word in enumerate(words):
        done.append(word)
        following = words[position + 1] if position + 1 < len(words) else "-"
        if word == "--resume" and following.startswith("-"):
            done.append(_NEWEST)
    return done
