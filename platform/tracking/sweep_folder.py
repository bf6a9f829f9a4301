"""The folder of a sweep, `runs/<space>-<yyyymmdd-hhmmss>/`.

    spec.yaml         the resolved search space
    plan.json         the resolved plan, with its provenance
    state.json        running, finished, failed or interrupted, with times
    trials.parquet    one row per trial (platform.tracking.parquet_tables)
    epochs.parquet    one row per epoch of each trial
    selection.json    the confirmed candidates and the verdict
    champion.json     the best configuration
    test.json         the metrics on the test split
    export/           the model folder for the engine, in fp32
    export-int8/      the same in the fastest precision that keeps the accuracy, if that is not fp32
    benchmark.json    the latency on this machine
    report.html
    mlflow.json       the MLflow store, without credentials
    error.log         the traceback of the unexpected error that ended the sweep
    mirror.json       the URI of --mirror, without credentials, and the files that were copied to it
    optuna.log        the ended trials of the search, for optuna-dashboard
    checkpoints/      one folder per trial
    tune/ logs/       files of Ray

`runs/latest` is a symlink to the newest folder, for users; programs call `latest`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import AwareDatetime, ConfigDict, Field, NonNegativeFloat, ValidationError

from platform.common.atomic import read_json, write_json
from platform.common.errors import UsageError, UserError, did_you_mean
from platform.common.schema import Frozen
from platform.common.steady_clock import wall_time

State = Literal["running", "finished", "failed", "interrupted"]

_ID = re.compile(r"(?P<space>.+)-(?P<time>\d{8}-\d{6})(?:-(?P<copy>\d+))?")


class _StateRecord(Frozen):
    """The values of state.json that are read back."""

    model_config = ConfigDict(extra="ignore")

    state: State = "interrupted"
    started_at: AwareDatetime | None = None
    running_since: AwareDatetime | None = None
    active_s: NonNegativeFloat = 0.0
    pid: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    host: str | None = None

    @property
    def on_other_machine(self) -> bool:
        """Whether the sweep ran on another machine, so its process cannot be looked up here."""
        return self.host not in (None, socket.gethostname())


class _Entry:
    """The path of a file or folder of a sweep; it may not exist."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: SweepFolder, owner: type[SweepFolder]) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class SweepFolder:
    """The paths of one sweep."""

    path: Path
    """Absolute, because Ray's workers have another working directory."""

    spec = _Entry("spec.yaml")
    plan = _Entry("plan.json")
    state = _Entry("state.json")
    trials = _Entry("trials.parquet")
    epochs = _Entry("epochs.parquet")
    journal = _Entry("journal.jsonl")
    selection = _Entry("selection.json")
    champion = _Entry("champion.json")
    test = _Entry("test.json")
    export = _Entry("export")
    benchmark = _Entry("benchmark.json")
    report = _Entry("report.html")
    checkpoints = _Entry("checkpoints")
    tune = _Entry("tune")
    logs = _Entry("logs")

    @property
    def sweep_id(self) -> str:
        """`<space>-<yyyymmdd-hhmmss>`, the folder's name."""
        return self.path.name

    @property
    def space(self) -> str:
        """The name of the search space, from the folder's name."""
        match = _ID.fullmatch(self.path.name)
        return match["space"] if match else self.path.name

    @property
    def lower_precisions(self) -> list[Path]:
        """The champion's exports in lower precisions, for example `export-int8`."""
        return sorted(path.parent for path in self.path.glob("export-*/model.json"))

    def checkpoint_dir(self, trial_id: str) -> Path:
        """Return the folder of last.pt and model.pt of a trial.

        The final run of an extended sweep (`final-2`) overwrites the folder of the previous final run.
        """
        return self.checkpoints / ("final" if trial_id.startswith("final-") else trial_id)

    def set_state(self, state: State, message: str = "") -> None:
        """Write the state of the sweep, its first start, and its wall time summed over all starts."""
        now = wall_time()
        now_text = now.isoformat(timespec="seconds")
        started_at = self.started_at
        # On a full disk the state stays `running`, which reads as `interrupted` once the process has ended.
        with suppress(OSError) if state in ("failed", "interrupted") else nullcontext():
            write_json(
                self.state,
                {
                    "state": state,
                    "message": message,
                    "started_at": started_at.isoformat() if started_at else now_text,
                    "updated_at": now_text,
                    "running_since": now.isoformat() if state == "running" else None,
                    "active_s": round(self.elapsed_s(), 1),
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                },
            )

    @property
    def active_s(self) -> float:
        """Wall seconds that the sweep has run, without pauses, up to the last change of its state."""
        return self._state_record().active_s

    def elapsed_s(self) -> float:
        """Return the wall seconds that the sweep has run until now, without pauses.

        A start that was killed counts up to its last event.
        """
        record = self._state_record()
        since = record.running_since if record.state == "running" else None
        if since is None:
            return self.active_s
        until = wall_time()
        if record.on_other_machine or (record.pid != os.getpid() and not psutil.pid_exists(record.pid)):
            files = [path for path in (self.state, self.journal, self.test, self.benchmark) if path.exists()]
            until = datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)
        return self.active_s + max(0.0, (until - since).total_seconds())

    @property
    def started_at(self) -> datetime | None:
        """Time of the first start; None if it is unknown."""
        return self._state_record().started_at

    def get_state(self) -> State:
        """Return the state of the sweep; `interrupted` if its process was killed.

        A sweep of another machine has the state in which its folder was copied.
        """
        record = self._state_record()
        ended = not record.on_other_machine and not psutil.pid_exists(record.pid)
        return "interrupted" if record.state == "running" and ended else record.state

    @property
    def unfinished(self) -> bool:
        """Whether `--resume` can continue the sweep, which requires spec.yaml."""
        return self.spec.exists() and self.get_state() != "finished"

    def is_sweep(self) -> bool:
        """Return whether the folder has a file that only sweeps write."""
        return any(path.is_file() for path in (self.state, self.spec, self.journal, self.trials))

    def _state_record(self) -> _StateRecord:
        """Return the content of state.json; the defaults of values that are missing or invalid."""
        try:
            content = read_json(self.state, remedy="remove it")
        except UserError:
            content = {}
        try:
            return _StateRecord.model_validate(content)
        except ValidationError as error:
            invalid = {problem["loc"][0] for problem in error.errors()}
            return _StateRecord.model_validate(
                {name: value for name, value in content.items() if name not in invalid}
            )


def new_sweep_folder(root: Path, space: str, *, now: datetime | None = None) -> SweepFolder:
    """Create `root/<space>-<yyyymmdd-hhmmss>/` with state `running`, and link `root/latest` to it.

    Sweeps started in the same second get the suffixes `-2`, `-3`, ...

    Args:
        root: usually `runs`; created if it does not exist.
        space: name of the search space (letters, digits, `_`, `.`, `-`).
        now: local time, for tests.

    Raises:
        UserError: the folder cannot be created.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", space):
        raise UsageError(
            f"the name of a search space may contain letters, digits, '_', '.' and '-'; got {space!r}"
        )
    stem = f"{space}-{now or datetime.now().astimezone():%Y%m%d-%H%M%S}"
    root = root.absolute()
    number = 1
    while True:
        path = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            break
        except FileExistsError:
            if not root.is_dir():
                raise UserError(f"the folder of the sweeps must be a folder, but {root} is a file") from None
            number += 1
        except OSError as error:
            raise UserError(f"cannot create the sweep folder {path}: {error.strerror}") from None
    folder = SweepFolder(path)
    folder.set_state("running")
    _point_latest(root, path)
    return folder


def all_sweeps(root: Path) -> list[SweepFolder]:
    """Return the sweeps under `root`, oldest first."""
    return [folder for _, folder in sorted(_dated(root), key=lambda item: item[0])]


def latest(root: Path, *, unfinished: bool = False) -> SweepFolder:
    """Return the newest sweep under `root`.

    Args:
        root: usually `runs`.
        unfinished: consider only sweeps that `--resume` can continue.

    Raises:
        UserError: there is no such sweep.
    """
    for folder in reversed(all_sweeps(root)):
        if not unfinished or folder.unfinished:
            return folder
    kind = "unfinished sweep" if unfinished else "sweep"
    raise UserError(f"no {kind} under {root.absolute()}; start one with: python -m platform.sweep SPACE")


def find_sweep(name: str | None, *, root: Path) -> SweepFolder:
    """Return a sweep by path, by id under `root`, or the newest one for `None` or `latest`.

    Raises:
        UserError: there is no such sweep; the message lists the existing ones.
        UsageError: the folder is not that of a sweep.
    """
    if name is None or name == "latest":
        return latest(root)
    folders = [path for path in (root / name, Path(name)) if path.is_dir()]
    for path in folders:
        if (folder := SweepFolder(path.resolve())).is_sweep():
            return folder
    if folders:
        kind = " but of a training run" if (folders[0] / "run.json").is_file() else ""
        raise UsageError(
            f"{folders[0]} is not the folder of a sweep{kind}; give the folder or the id of a sweep"
        )
    ids = [folder.sweep_id for folder in all_sweeps(root)]
    known = f"; existing sweeps: {', '.join(ids[-5:])}" if ids else ""
    raise UserError(
        f"no sweep {name!r}: it must be a folder, or an id under {root.absolute()}"
        f"{did_you_mean(name, ids)}{known}"
    )


def _dated(root: Path) -> Iterator[tuple[tuple[str, int], SweepFolder]]:
    if not root.is_dir():
        return
    for path in root.iterdir():
        match = _ID.fullmatch(path.name)
        folder = SweepFolder(path.absolute())
        if match and not path.is_symlink() and folder.is_sweep():
            yield (match["time"], int(match["copy"] or 1)), folder


def _point_latest(root: Path, path: Path) -> None:
    # The link is optional: a file system without symlinks, or a real folder named `latest`, is not an error.
    link, temporary = root / "latest", root / f".latest.{os.getpid()}.tmp"
    if link.exists() and not link.is_symlink():
        return
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name, target_is_directory=True)
        temporary.replace(link)
