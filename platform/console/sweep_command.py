"""The command line of `platform.sweep`; imports no heavy library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.common.command_line import DataDir, Flag, option, parse_command_line
from platform.common.errors import UsageError
from platform.space.quick import quick_variant
from platform.space.space_files import SweepSpec, changed_fields, find_spaces, load_space, load_spec
from platform.tracking.sweep_folder import SweepFolder, find_sweep, latest

_NEWEST = "latest"


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Continue an existing sweep."""

    sweep: Annotated[str | None, option("[SWEEP]", name="resume")] = None
    """Continue an interrupted sweep: its folder or id, or the newest one."""
    extend: Annotated[int | None, option("N")] = None
    """With --resume: run N more search trials, and repeat the later stages if their inputs change."""
    again: Flag = False
    """With --resume: allow a further evaluation on the test split."""


@dataclass(frozen=True, kw_only=True)
class ActionOptions:
    """Run no sweep."""

    list: Flag = False
    """List the sweeps in --output with their state and best accuracy."""
    export: Annotated[tuple[str, str] | None, option("SWEEP TRIAL")] = None
    """Export one trial of a sweep as a model folder for the engine."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Source of the training images."""

    data_dir: DataDir = None
    """Folder of the dataset."""
    offline: Flag = False
    """Do not download anything."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Destination of the results."""

    root: Annotated[Path, option("PATH", default="runs", name="output")] = Path("runs")
    """Folder of the sweeps."""
    tracking_uri: Annotated[
        str | None, option("URI", default="$MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
    ] = None
    """MLflow store."""
    quiet: Flag = False
    """Print the result only, without progress."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Sweep a search space: search, confirm, train the champion, export, benchmark, report."""

    space: Annotated[str | None, tyro.conf.Positional, option("[SPACE]")] = None
    """Name of a search space in search_spaces/, or path of a .yaml file."""
    dry_run: Flag = False
    """Print the plan with a time estimate, and exit."""
    quick: Flag = False
    """Run every stage with very short training, on generated images if CIFAR-10 is not available."""
    settings: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, option("KEY=VALUE ...", name="set")
    ] = ()
    """Override settings of the space file: trials=12 base.epochs=6 ... (repeatable)"""
    warm_start: Annotated[str | None, option("SWEEP")] = None
    """Initialize the sampler with the finished trials of an earlier sweep."""
    resume: ResumeOptions = ResumeOptions()
    action: ActionOptions = ActionOptions()
    data: DataOptions = DataOptions()
    output: OutputOptions = OutputOptions()


def read_command(words: Sequence[str], *, prog: str = "python -m platform.sweep") -> Arguments:
    """Parse the command line.

    Args:
        words: the arguments of the command.
        prog: the command as the usage line shows it.

    Raises:
        UsageError: the options cannot be combined.
    """
    arguments = parse_command_line(Arguments, prog=prog, words=_with_resume_value(words))
    resume = arguments.resume
    needing = [name for name, given in (("--extend", resume.extend), ("--again", resume.again)) if given]
    if needing and resume.sweep is None:
        raise UsageError(f"{needing[0]} needs a sweep to continue: add --resume or --resume SWEEP")
    if arguments.warm_start is not None and resume.sweep is not None:
        raise UsageError("--warm-start is for new sweeps: a resumed sweep keeps the state of its sampler")
    return arguments


def spec_and_folder(arguments: Arguments) -> tuple[SweepSpec, SweepFolder | None]:
    """Return the spec, and the folder of a resumed sweep.

    Raises:
        UsageError: there is no such space, it has errors, or it has changed since the sweep began.
        UserError: there is no such sweep.
    """
    settings = [text for group in arguments.settings for text in group]
    resume, root = arguments.resume, arguments.output.root
    if resume.sweep is None:
        if arguments.space is None:
            names = ", ".join(find_spaces())
            raise UsageError(f"give a search space: python -m platform.sweep SPACE; available: {names}")
        spec = load_space(arguments.space, overrides=settings)
        return (quick_variant(spec) if arguments.quick else spec), None
    finished_too = resume.extend is not None or resume.again
    folder = (
        latest(root, unfinished=not finished_too)
        if resume.sweep == _NEWEST
        else find_sweep(resume.sweep, root=root)
    )
    spec = load_spec(folder.path)
    from platform.tuning.journal.journal import refuse_running

    refuse_running(folder.journal)
    if arguments.space is not None or settings:
        _refuse_changes(arguments, settings, spec, folder)
    return spec, folder


def is_quick_sweep(folder: SweepFolder | None) -> bool:
    """Return whether a resumed sweep is a quick one."""
    if folder is None:
        return False
    from platform.tracking.results import read_results

    return read_results(folder).quick


def _refuse_changes(
    arguments: Arguments, settings: Sequence[str], spec: SweepSpec, folder: SweepFolder
) -> None:
    """Raise UsageError if the given space differs from the spec of the resumed sweep."""
    given = load_space(arguments.space or spec.name, overrides=settings)
    if arguments.quick or is_quick_sweep(folder):
        given = quick_variant(given)
    changed = [name for name in changed_fields(spec, given) if name != "base.data.name"]
    if changed:
        raise UsageError(
            f"the settings of a resumed sweep cannot change, but {', '.join(changed)} changed since "
            f"{folder.sweep_id} began; undo that, or start a new sweep without --resume"
        )


def _with_resume_value(words: Sequence[str]) -> list[str]:
    """Return `words` with the value `latest` after a `--resume` without a value."""
    completed = []
    for position, word in enumerate(words):
        completed.append(word)
        following = words[position + 1] if position + 1 < len(words) else "-"
        if word == "--resume" and following.startswith("-"):
            completed.append(_NEWEST)
    return completed
