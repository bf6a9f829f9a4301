"""Start a Ray cluster over ssh, run a sweep on it, fetch the results. The file is that of `ray up`.

    python -m platform.cluster check                  # what would stop `up`, and how to fix it
    python -m platform.cluster up                     # check, then `ray up`, then wait for all machines
    python -m platform.cluster sweep resnet18_cifar   # platform.sweep on the cluster; survives this terminal
    python -m platform.cluster sweep                  # follow that sweep again
    python -m platform.cluster stop                   # interrupt it; continue it with: ... sweep --resume
    python -m platform.cluster status
    python -m platform.cluster fetch                  # copy runs/ and MLflow's records to this machine
    python -m platform.cluster down

All take another cluster file: `check deploy/clusters/aws.yaml`, `sweep --cluster FILE SPACE`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from platform.clusters.cluster_file import REMOTE, Cluster, call_ray, command, read_cluster
from platform.common.command_line import Flag, option, parse_command_line
from platform.common.errors import Interrupted, UsageError, UserError, run_command

if TYPE_CHECKING:
    from platform.clusters.probe import NodeFacts

_JOIN_TIMEOUT_S = 300


@dataclass(frozen=True, kw_only=True)
class _OnCluster:
    cluster: Annotated[Path | None, tyro.conf.Positional, option("[CLUSTER]", default="cluster.yaml")] = None
    """File of `ray up`."""


class Check(_OnCluster):
    """Find what would stop `up` or a sweep: the file, ssh, machines, token. Starts and changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Up(_OnCluster):
    """Check, start Ray on all machines with `ray up`, and wait until they have joined."""

    no_check: Flag = False
    """Start although a check fails."""


class Status(_OnCluster):
    """Show the machines, the running sweep and the sweeps on the head."""


class Stop(_OnCluster):
    """Interrupt the running sweep; its finished epochs are kept."""


@dataclass(frozen=True, kw_only=True)
class Fetch(_OnCluster):
    """Copy the sweeps, and the MLflow store with its artifacts, from the head to this machine."""

    runs: Annotated[Path, option("PATH", default="runs")] = Path("runs")
    """Folder of the sweeps on this machine."""


@dataclass(frozen=True, kw_only=True)
class Down(_OnCluster):
    """Stop Ray on all machines with `ray down`; a cloud's machines are deleted, after a last `fetch`."""

    force: Flag = False
    """Also while a sweep is running."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run a sweep on the cluster, with the options of `platform.sweep`; without any, follow the last one."""

    cluster: Annotated[Path | None, option("FILE", default="cluster.yaml")] = None
    """File of `ray up`; this option comes first."""


_Command = (
    Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Up, tyro.conf.subcommand("up")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Status, tyro.conf.subcommand("status")]
    | Annotated[Stop, tyro.conf.subcommand("stop")]
    | Annotated[Fetch, tyro.conf.subcommand("fetch")]
    | Annotated[Down, tyro.conf.subcommand("down")]
)


def _command(command: _Command) -> _Command:
    """Start a Ray cluster over ssh, run a sweep on it, fetch the results."""
    return command


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.cluster") -> int:
    """Run the command."""
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["sweep"] and words[1:2] not in (["-h"], ["--help"]):
        return _sweep(words[1:], prog=f"{prog} sweep")
    arguments = parse_command_line(_command, prog=prog, words=words or ["--help"])
    cluster = read_cluster(arguments.cluster)
    if isinstance(arguments, Check):
        errors, _ = _check(cluster)
        return 1 if errors else 0
    if isinstance(arguments, Up):
        return _up(cluster, ignore=arguments.no_check)
    if isinstance(arguments, Fetch):
        return _fetch(cluster, arguments.runs)
    if isinstance(arguments, Down):
        return _down(cluster, force=arguments.force)
    from platform.clusters.remote import stream_on_head

    return stream_on_head(cluster, words[0])


def _check(cluster: Cluster) -> tuple[int, list[NodeFacts]]:
    """Print the machines and the findings; return the number of errors, and the machines."""
    from platform.clusters.checks import check_here
    from platform.clusters.node_checks import check_nodes
    from platform.clusters.probe import probe_nodes
    from platform.clusters.report import print_report

    findings = check_here(cluster)
    nodes = probe_nodes(cluster) if cluster.is_local and cluster.internal_head and cluster.user else []
    findings += check_nodes(cluster, nodes)
    return print_report(cluster, nodes, findings), nodes


def _up(cluster: Cluster, *, ignore: bool) -> int:
    errors, nodes = _check(cluster)
    if errors and not ignore:
        raise UserError("nothing was started; fix the errors above, or start anyway with --no-check")
    _refuse_running_sweep(cluster, nodes, "restarts Ray")
    print("\nray up: the first time it installs 6 GB on each machine, which takes some minutes", flush=True)
    code = call_ray(cluster, "up", "-y", "--no-config-cache")
    if code != 0:
        raise UserError(f"`ray up` failed with exit code {code}; its messages above name the step")
    _wait_for_workers(cluster)
    print(f"\nthe cluster runs; start a sweep with: {command('sweep', cluster, 'resnet18_cifar')}")
    return 0


def _wait_for_workers(cluster: Cluster) -> None:
    """Wait until every worker of a local cluster is a node of Ray; a cloud starts workers on demand.

    Raises:
        UserError: some machines have not joined.
    """
    from platform.clusters.remote import on_head

    if not cluster.is_local:
        return
    expected, seen = 1 + len(cluster.workers), 0
    deadline_s = time.monotonic() + _JOIN_TIMEOUT_S
    while True:
        alive = on_head(cluster, "nodes").split()
        if len(alive) != seen:
            seen = len(alive)
            print(f"{seen} of {expected} machines have joined", flush=True)
        if seen >= expected:
            return
        if time.monotonic() > deadline_s:
            log = "/tmp/ray/session_latest/logs/monitor.out"  # noqa: S108 - Ray's folder on the head
            raise UserError(
                f"{expected - seen} of {expected} machines have not joined within {_JOIN_TIMEOUT_S} s; "
                f"joined: {', '.join(alive)}. The head starts the workers; its log: "
                f"ssh {cluster.user}@{cluster.head} tail -n 50 {log}"
            )
        time.sleep(2)


def _sweep(words: Sequence[str], *, prog: str) -> int:
    """Run a sweep on the cluster, or follow the running or last one."""
    words = list(words)
    path = None
    if words[:1] == ["--cluster"]:
        if len(words) < 2:
            raise UsageError("--cluster needs the path of a cluster file")
        path, words = Path(words[1]), words[2:]
    space = _checked_space(words, prog=prog) if words else None
    cluster = read_cluster(path)
    if space is not None:
        from platform.clusters.fetch import send_space

        words[words.index(space)] = send_space(cluster, space)
    from platform.clusters.remote import stream_on_head

    again, stop = command("sweep", cluster), command("stop", cluster)
    try:
        return stream_on_head(cluster, "sweep", *words)
    except KeyboardInterrupt:
        raise Interrupted(
            f"\ndetached; the sweep continues on the cluster. Follow it again with:\n  {again}\n"
            f"Stop it with:\n  {stop}"
        ) from None
    except UserError as error:
        raise UserError(
            f"{error}\na sweep that was running continues; follow it again with: {again}"
        ) from None


def _checked_space(words: Sequence[str], *, prog: str) -> str | None:
    """Return the search space of a sweep's command line, checked as `platform.sweep` does.

    Raises:
        UsageError: an option or the space is wrong.
    """
    from platform.console.sweep_command import read_command
    from platform.space.space_files import load_space

    arguments = read_command(words, prog=prog)
    if arguments.space is not None:
        load_space(arguments.space, overrides=[text for group in arguments.settings for text in group])
    elif arguments.resume.sweep is None and arguments.action.export is None and not arguments.action.list:
        raise UsageError(f"give a search space: {prog} SPACE; without any option, it follows the last sweep")
    return arguments.space


def _fetch(cluster: Cluster, runs: Path) -> int:
    from platform.clusters.fetch import fetch
    from platform.tracking.mlflow_store import ui_command

    fetched, database = fetch(cluster, runs)
    where = "" if runs == Path("runs") else f" --runs {runs}"
    print(f"{len(fetched)} new or changed sweeps:", *(f"  {folder.path}" for folder in fetched), sep="\n")
    if fetched:
        print(f"report: python -m platform.report {fetched[-1].sweep_id}{where}")
    if database is not None:
        print(f"MLflow: {ui_command(f'sqlite:///{database}')}")
    return 0


def _down(cluster: Cluster, *, force: bool) -> int:
    if cluster.is_local and not force:
        from platform.clusters.probe import probe_nodes

        _refuse_running_sweep(cluster, probe_nodes(cluster), "ends it", " or add --force")
    if not cluster.is_local:
        _fetch(cluster, Path("runs"))
    code = call_ray(cluster, "down", "-y")
    _stop_workers(cluster)
    return code


def _stop_workers(cluster: Cluster) -> None:
    """Stop Ray on the workers of a local cluster, which end by themselves only a minute after the head."""
    if not cluster.is_local:
        return
    running = [
        subprocess.Popen(
            cluster.ssh(host, f"{REMOTE}/.venv/bin/ray stop"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in cluster.workers
    ]
    for host, process in zip(cluster.workers, running, strict=True):
        _, said = process.communicate()
        if process.returncode != 0:
            print(f"warning: Ray was not stopped on {host}: {said.strip()[-200:]}", file=sys.stderr)


def _refuse_running_sweep(
    cluster: Cluster, nodes: Sequence[NodeFacts], why: str, alternative: str = ""
) -> None:
    """Raise an error if a sweep of this user is running on a machine.

    Raises:
        UserError: one is running.
    """
    for node in nodes:
        if node.all("sweep"):
            raise UserError(
                f"a sweep is running on {node.host} (process {', '.join(node.all('sweep'))}), and this "
                f"command {why}; "
                f"wait for its end, stop it with: {command('stop', cluster)}{alternative}"
            )


if __name__ == "__main__":
    run_command(main)
