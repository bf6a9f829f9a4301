"""The files of trials on a cluster whose nodes do not share the sweep's folder.

A `FileServer` on the driver's node reads and writes files there. A process on another node

- copies the images to the node's dataset cache before its first trial, unless the node has them;
- copies each checkpoint, and the trained model, to the sweep's folder before the epoch is reported, so the
  journal never holds an epoch that a trial could not resume from on another node;
- writes the trial's log into the sweep's folder, line by line.

A node that can read the server's probe file shares the folder, and uses it directly. A local session has no
server.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import psutil

from platform.common.atomic import discard_unfinished
from platform.common.errors import UserError
from platform.data import cache
from platform.data.dataset import DatasetInfo
from platform.tracking.events import SweepObserver
from platform.tracking.sweep_folder import SweepFolder
from platform.training.run_folder import LAST
from platform.tuning.execution.cluster_nodes import is_answering
from platform.tuning.file_server import (
    FileServer,
    Served,
    ServedLog,
    cause_of,
    get_result,
    pull,
    push,
)
from platform.tuning.journal.trial import FAILURE, TrialFailed, TrialTask, open_log_file

_DATASET_FILES = ("dataset.json", "train.arrow", "test.arrow")
_SERVER_POLL_S = 1.0


@contextmanager
def file_server(folder: SweepFolder, info: DatasetInfo, observer: SweepObserver) -> Iterator[str | None]:
    """Serve the sweep's files to the nodes of a cluster, and place the images on the nodes that lack them.

    Yields:
        The name of the server, for `trial_files`; None in a local session, which needs no server.

    Raises:
        UserError: a node cannot store the images or has no working copy of this program.
    """
    if not os.environ.get("RAY_ADDRESS"):
        yield None
        return
    import ray

    name = f"files-{folder.sweep_id}-{secrets.token_hex(4)}"
    server: Any = (
        ray.remote(FileServer)
        .options(
            name=name, num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_on(_here())
        )
        .remote(folder.path, info.path, info.sha256)
    )
    try:
        ray.get(server.served.remote())  # its folder is writable
        _place_images_on_nodes(server, info, observer)
        yield name
    finally:
        discard_unfinished(folder.path, "probe")
    if is_answering():  # after an error the job ends, and the server with it
        ray.kill(server)


def _place_images_on_nodes(server: Any, info: DatasetInfo, observer: SweepObserver) -> None:
    """Place the images on every node that is alive; one that joins later gets them before its first trial."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    place = ray.remote(_place_images)
    nodes = {
        place.options(num_cpus=0, max_retries=0, scheduling_strategy=_on(node["NodeID"])).remote(
            server
        ): node["NodeManagerAddress"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["NodeID"] != _here()
    }
    began_s, copied, is_announced = time.monotonic(), list[str](), False
    running = list(nodes)
    while running:
        done, running = ray.wait(running, timeout=_SERVER_POLL_S)
        if not is_announced and ray.get(server.sent_bytes.remote()):
            is_announced = True
            observer.sweep_noted(f"copying the images ({_size(info.path) / 1e6:.0f} MB) to the nodes")
        for task in done:
            try:
                if ray.get(task)[1]:
                    copied.append(nodes[task])
            except RayTaskError as error:
                raise UserError(f"the node {nodes[task]} cannot run trials: {cause_of(error)}") from error
            except RayError:
                continue  # the node has left
    if copied:
        took_s = time.monotonic() - began_s
        observer.sweep_noted(f"the images were copied to {', '.join(sorted(copied))} in {took_s:.1f} s")


def _place_images(server: Any) -> tuple[Path, int]:
    """Return the folder of the dataset on this node, and the bytes that were copied there."""
    served: Served = get_result(server, server.served.remote())
    path, cache_dir = served.data_path, cache.default_cache_dir()
    for folder in (path, cache_dir / "datasets" / path.name):
        if cache.find_copy(folder, served.data_sha256) is not None:
            return folder, 0
    copied = 0

    def write_files(folder: Path) -> None:
        nonlocal copied
        copied = sum(pull(server, f"{path}/{file}", folder / file) for file in _DATASET_FILES)

    return cache.store_copy(cache_dir, path.name, served.data_sha256, write_files).path, copied


class TrialFiles:
    """The files of one trial in a process that trains it.

    Attributes:
        checkpoint_dir: the folder of last.pt and model.pt on this node.
    """

    def __init__(self, task: TrialTask, server: Any, scratch: Path | None) -> None:
        self.checkpoint_dir = Path(task.checkpoint_dir) if scratch is None else scratch
        self._task, self._server, self._is_copied = task, server, scratch is not None
        self._moved_bytes = 0

    def place_images(self) -> tuple[Path, str | None]:
        """Return the dataset's folder on this node, and a note if the images had to be copied here."""
        if self._server is None:
            return Path(self._task.data_path), None
        began_s = time.monotonic()
        path, copied = _place_images(self._server)
        self._moved_bytes += copied
        took_s, host = time.monotonic() - began_s, os.uname().nodename
        return path, f"the images were copied to {host} in {took_s:.1f} s" if copied else None

    def fetch_checkpoint(self) -> None:
        """Copy the trial's checkpoint to this node, if there is one."""
        if not self._is_copied:
            return
        get_result(self._server, self._server.discard_unfinished.remote(self._task.checkpoint_dir))
        source = f"{self._task.checkpoint_dir}/{LAST}"
        if get_result(self._server, self._server.stat.remote(source)) is not None:
            self._moved_bytes += pull(self._server, source, self.checkpoint_dir / LAST)

    def save(self, path: Path) -> None:
        """Copy a file of `checkpoint_dir` to the sweep's folder; it replaces the earlier one atomically."""
        if self._is_copied:
            self._moved_bytes += push(self._server, path, f"{self._task.checkpoint_dir}/{path.name}")

    def open_log(self, path: Path) -> TextIO:
        """Open a log in the sweep's folder, to append to it."""
        if self._is_copied:
            return ServedLog(self._server, path)  # type: ignore[return-value]
        return open_log_file(path)

    def failure_metrics(self, failure: TrialFailed) -> dict[str, Any]:
        """Return the metrics that report a failure to Tune, with paths of the driver's node."""
        text = failure.text.replace(str(self.checkpoint_dir), self._task.checkpoint_dir)
        return failure.as_metrics() | {FAILURE: text}

    def take_moved_bytes(self) -> int | None:
        """Return the bytes copied between nodes since the last call; None if there were none."""
        moved, self._moved_bytes = self._moved_bytes, 0
        return moved or None


@contextmanager
def trial_files(task: TrialTask, server_name: str | None) -> Iterator[TrialFiles]:
    """Yield the files of a trial; `server_name` is that of `file_server`.

    On a node that does not share the sweep's folder the trial's checkpoints lie in a scratch folder, which is
    removed at the end.
    """
    if server_name is None:
        yield TrialFiles(task, None, None)
        return
    import ray

    server: Any = ray.get_actor(server_name)
    if _shares_folder(get_result(server, server.served.remote())):
        yield TrialFiles(task, server, None)
        return
    parent = cache.default_cache_dir() / "trials"
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    scratch = Path(tempfile.mkdtemp(prefix=f"{os.uname().nodename}.{os.getpid()}.", dir=parent))
    try:
        yield TrialFiles(task, server, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _shares_folder(served: Served) -> bool:
    """Return whether this node can read the probe file, and can write next to it."""
    try:
        if served.probe.read_text() != served.token:
            return False
        with tempfile.TemporaryFile(dir=served.probe.parent):
            return True
    except OSError:
        return False


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of processes of this machine that were killed."""
    for folder in parent.glob(f"{os.uname().nodename}.*"):
        if not psutil.pid_exists(int(folder.name.split(".")[-2])):
            shutil.rmtree(folder, ignore_errors=True)


def _here() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _size(folder: Path) -> int:
    return sum((folder / file).stat().st_size for file in _DATASET_FILES)
