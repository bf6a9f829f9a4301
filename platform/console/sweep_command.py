"""The command line of `platform.sweep`; imports no heavy library."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from platform.common.command_line import DataDir, Flag, option, parse_command_line, require_local
from platform.common.errors import UsageError
from platform.space.space_files import find_spaces, load_space, load_spec
from platform.space.spec import SweepSpec, changed_fields
from platform.tracking.sweep_folder import SweepFolder, find_sweep, latest

_NEWEST = "latest"
_QUICK_S = 300.0
_UNITS_S = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, kw_only=True)
class ResumeOptions:
    """Continue an existing sweep."""

    sweep: Annotated[str | None, option("[SWEEP]", name="resume")] = None
    """Continue an interrupted sweep: its folder or id, its mirror, or the newest one."""
    extend: Annotated[int | None, option("N")] = None
    """With --resume: run N more search trials, and repeat the later stages if their inputs change."""
    again: Flag = False
    """With --resume: allow a further evaluation on the test split."""


@dataclass(frozen=True, kw_only=True)
class ActionOptions:
    """Run no sweep."""

    list: Flag = False
    """List the sweeps in --runs with their state and best accuracy."""
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

    root: Annotated[Path, option("PATH", default="runs", name="runs")] = Path("runs")
    """Folder of the sweeps."""
    tracking_uri: Annotated[
        str | None, option("URI", default="$MLFLOW_TRACKING_URI, else sqlite:///mlflow.db")
    ] = None
    """MLflow store."""
    mirror: Annotated[str | None, option("URI")] = None
    """Keep a copy of the sweep's folder at s3://BUCKET/PATH, gs://BUCKET/PATH or a path, for --resume URI."""
    quiet: Flag = False
    """Print the result only, without progress."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Sweep a search space: search, confirm, train the champion, export, benchmark, report."""

    space: Annotated[str | None, tyro.conf.Positional, option("[SPACE]")] = None
    """Name of a search space in search_spaces/, or path of a .yaml file."""
    dry_run: Flag = False
    """Print the plan with a time estimate, and exit."""
    within: Annotated[str | None, option("TIME")] = None
    """Size the sweep to a time, such as 5min, 2h or 1d: numbers of runs, their length, batch sizes."""
    quick: Flag = False
    """The same as --within 5min, on generated images if CIFAR-10 is not available."""
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

    def budget_s(self) -> float | None:
        """Return the time budget of a new sweep in seconds; None without one.

        Raises:
            UsageError: `--within` is not a time.
        """
        return _QUICK_S if self.quick else None if self.within is None else _seconds(self.within)


def read_command(words: Sequence[str], *, prog: str = "python -m platform.sweep") -> Arguments:
    """Parse the command line.

    Raises:
        UsageError: the options cannot be combined.
    """
    arguments = parse_command_line(Arguments, prog=prog, words=_with_resume_value(words))
    require_local(arguments.output.root, "--runs")
    resume = arguments.resume
    needing = [name for name, given in (("--extend", resume.extend), ("--again", resume.again)) if given]
    if needing and resume.sweep is None:
        raise UsageError(f"{needing[0]} needs a sweep to continue: add --resume or --resume SWEEP")
    if arguments.warm_start is not None and resume.sweep is not None:
        raise UsageError("--warm-start is for new sweeps: a resumed sweep keeps the state of its sampler")
    if arguments.within is not None and arguments.quick:
        raise UsageError("--quick is --within 5min: give one of them")
    if resume.sweep is not None and (arguments.within is not None or arguments.quick):
        option_name = "--quick" if arguments.quick else "--within"
        raise UsageError(f"{option_name} is for new sweeps: a resumed sweep keeps its time budget")
    arguments.budget_s()
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
        return load_space(arguments.space, overrides=settings), None
    from platform.tuning.mirror import is_mirror, restore

    finished_too = resume.extend is not None or resume.again
    if resume.sweep == _NEWEST:
        folder = latest(root, unfinished=not finished_too)
    elif is_mirror(resume.sweep):
        folder = restore(resume.sweep, root, progress=lambda text: print(text, file=sys.stderr))
    else:
        folder = find_sweep(resume.sweep, root=root)
    spec = load_spec(folder.path)
    from platform.tuning.journal.journal import refuse_running

    refuse_running(folder.journal)
    if arguments.space is not None or settings:
        _refuse_changes(arguments, settings, spec, folder)
    return spec, folder


def _seconds(text: str) -> float:
    """Return the seconds of `90s`, `5min`, `1.5h` or `2d`.

    Raises:
        UsageError: the text is not a time.
    """
    match = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)\s*(s|min|m|h|d)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--within must be a time such as 90s, 5min, 2h or 1d, got {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]


def _refuse_changes(
    arguments: Arguments, settings: Sequence[str], spec: SweepSpec, folder: SweepFolder
) -> None:
    """Raise UsageError if the given space differs from the spec of the resumed sweep."""
    from platform.tracking.results import read_results

    given = load_space(arguments.space or spec.name, overrides=settings)
    within = (read_results(folder).plan or {}).get("within")
    if within is not None:
        changed = ["the settings"] if given.digest() != within["full_digest"] else []
    else:
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
