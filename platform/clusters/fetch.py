"""Copy the sweeps and the MLflow store of a cluster to this machine, and a search space to the head."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from platform.clusters.checks import is_this_machine
from platform.clusters.cluster_file import PROJECT, REMOTE, Cluster
from platform.clusters.head import SNAPSHOT
from platform.clusters.remote import on_head
from platform.common.atomic import read_json, write_json
from platform.common.errors import UserError
from platform.space.space_files import find_spaces
from platform.tracking.sweep_folder import SweepFolder, all_sweeps


def fetch(cluster: Cluster, runs: Path) -> tuple[list[SweepFolder], Path | None]:
    """Copy what is new or has changed since the last time.

    The paths of the head in the MLflow database and in the sweeps' `mlflow.json` become those of the copies.

    Args:
        cluster: the cluster; a cloud's must be running.
        runs: folder of the sweeps on this machine.

    Returns:
        The sweeps of the cluster, and the MLflow database; None if the sweeps use an MLflow server.

    Raises:
        UserError: the head does not answer, has no sweeps, or a file cannot be written.
    """
    remote = Path(on_head(cluster, "snapshot").splitlines()[-1])
    if is_this_machine(cluster.head) and remote == PROJECT:
        raise UserError(
            f"the head's project is this folder, {PROJECT}: its results are in runs/ and mlflow.db"
        )
    runs = runs.absolute()
    target = runs / f"mlflow-{cluster.name}"
    target.mkdir(parents=True, exist_ok=True)
    before = _times(runs)
    # `latest` would point to the newest sweep of the cluster; `tune` has files of Ray that nothing reads.
    _copy(cluster, f"{remote}/runs/", runs, "--exclude=/latest", "--exclude=/*/tune/")
    _copy(cluster, f"{remote}/mlartifacts", target)
    _copy(cluster, f"{remote}/{SNAPSHOT}", target)
    database, snapshot = target / "mlflow.db", target / SNAPSHOT
    has_database = snapshot.exists()
    if has_database:
        moved = {f"{remote}/mlartifacts": f"{target}/mlartifacts", f"{remote}/runs/": f"{runs}/"}
        moved[f"{remote}/mlflow.db"] = str(database)
        _replace_paths(snapshot, moved)
        snapshot.replace(database)
        for folder in all_sweeps(runs):
            store = folder.path / "mlflow.json"
            if store.exists():
                record = read_json(store, remedy="fetch it again")
                if record["tracking_uri"] == f"sqlite:///{remote}/mlflow.db":
                    write_json(store, {**record, "tracking_uri": f"sqlite:///{database}"})
    after = _times(runs)
    fetched = [folder for folder in all_sweeps(runs) if after[folder.path] != before.get(folder.path)]
    return fetched, database if has_database else None


def send_space(cluster: Cluster, name_or_path: str) -> str:
    """Copy a space file to the head, which may have an older one or none; return its path there.

    Raises:
        UserError: the head does not answer, or has no project.
    """
    path = find_spaces().get(name_or_path, Path(name_or_path))
    target = f"search_spaces/{path.name}"
    _rsync(cluster, str(path), f"{cluster.user}@{cluster.head}:{REMOTE.removeprefix('~/')}/{target}")
    return target


def _times(runs: Path) -> dict[Path, float]:
    return {
        folder.path: folder.state.stat().st_mtime if folder.state.exists() else 0
        for folder in all_sweeps(runs)
    }


def _copy(cluster: Cluster, source: str, target: Path, *options: str) -> None:
    """Copy from the head; a source that does not exist is skipped."""
    _rsync(cluster, *options, "--ignore-missing-args", f"{cluster.user}@{cluster.head}:{source}", str(target))


def _rsync(cluster: Cluster, *words: str) -> None:
    shell = shlex.join(["ssh", *cluster.ssh_options()])
    call = ["rsync", "--archive", "--compress", "--protect-args", f"--rsh={shell}", *words]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    # 24: files vanished meanwhile, because a sweep is running.
    if done.returncode not in (0, 24):
        raise UserError(f"rsync failed, {words[-2]} to {words[-1]}: {done.stderr.strip()[-300:]}")


def _replace_paths(database: Path, moved: dict[str, str]) -> None:
    """Replace paths in all text columns, in plain form and as in `file://` addresses."""
    pairs = {form(old): form(new) for form in (str, quote) for old, new in moved.items()}
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        for table in tables:
            columns = [
                name
                for _, name, kind, *_ in connection.execute(f"PRAGMA table_info('{table}')")
                if kind.upper().startswith(("VARCHAR", "TEXT"))
            ]
            for column in columns:
                for old, new in pairs.items():
                    connection.execute(
                        f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) '  # noqa: S608 - MLflow's names
                        f'WHERE instr("{column}", ?)',
                        (old, new, old),
                    )
