"""Measure a sweep's driver with up to 1,000 trials: speed, cost per event, memory, time to the next trial.

    python -m benchmarks.driver_scaling                             # 10, 100, 1,000 trials x 50 epochs
    python -m benchmarks.driver_scaling --trials 100 --json driver.json

Each size runs in its own process. A search of `resnet32_cifar` (TPE) runs through the code of a real sweep:
journal, ledger, sampler, scheduler, tables, MLflow on SQLite, and the console as lines and as a live view,
both to /dev/null. Only Ray Tune is replaced, by a loop that makes its calls in its order with made-up epochs,
as fast as the driver takes them. Up to 100 trials run at a time; accuracies rise, so all run to their end.
Afterwards the sweep is resumed, which replays its journal and adds nothing, and its report is written.

An event is an epoch. Columns of the first table:

    events/s      events / wall seconds of the search, until MLflow and the tables have all of them
    driver        events / wall seconds of the driver's thread alone
    CPU ms        CPU time of the process per event, all threads
    KiB/event     memory growth per event over the second half of the search; peak MiB: of the process
    KB written    to files, per event
    next, ms      from a freed slot to the next trial's task: median and maximum of the last 100
    resume, s     opening the finished sweep again;  report, s  writing report.html

Columns of the second table: milliseconds per event by component; wall time on the driver's thread, and for
those marked * CPU time of a background thread.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import psutil

from benchmarks import record
from benchmarks.command import Parser, at_least, say
from platform.common.errors import run_command
from platform.training.records import EpochRecord

_SLOTS = 100
_LATEST = 100
_SAMPLES = 10


@dataclass
class Meter:
    """Measurements of a synthetic search."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    turn_s: list[float] = field(default_factory=list)
    """From a freed slot to the next task, in order."""
    memory: list[tuple[int, int]] = field(default_factory=list)
    """Number of events so far and resident bytes of the process."""
    events: int = 0
    driver_s: float = 0.0

    def timed(self, call: Callable[..., Any], name: str, clock: Callable[[], float]) -> Callable[..., Any]:
        """Return `call` with its time added to that of the component `name`."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            before = clock()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] += clock() - before

        return measured


class SyntheticTuner:
    """Makes Ray Tune's calls in the order of its controller, with made-up epochs."""

    def __init__(
        self, job: Any, context: Any, journal: Any, *, epochs: int, meter: Meter, every: int
    ) -> None:
        """Prepare the trials of `job` like `tuner_run.run_trials`; memory is sampled every `every` events."""
        from platform.tuning.execution.driver_callback import DriverCallback
        from platform.tuning.execution.interrupts import Interrupts
        from platform.tuning.sampling.task_queue import TaskQueue

        nodes: Any = SimpleNamespace(concurrent=context.placement.concurrent, poll=tuple)
        self._queue = TaskQueue(
            job.next_task,
            waiting=job.waiting,
            concurrent=nodes.concurrent,
            epochs_known=journal.ledger.epochs_known,
        )
        self._callback = DriverCallback(
            journal,
            observer=context.observer,
            interrupts=Interrupts(),
            listeners=job.listeners,
            queue=self._queue,
            nodes=nodes,
            max_failures=job.max_failures,
        )
        self._job, self._epochs, self._meter, self._every = job, epochs, meter, every

    def fit(self) -> None:
        """Run the search to its end."""
        began, running, freed = time.perf_counter(), [], 0.0
        started: list[Any] = []
        position = 0
        while True:
            self._callback.on_step_begin(iteration=position, trials=started)
            config = self._queue.suggest(f"tune{len(started)}")
            if isinstance(config, dict):
                if freed:
                    self._meter.turn_s.append(time.perf_counter() - freed)
                trial = _trial(f"tune{len(started)}", config)
                started.append(trial)
                running.append(trial)
                self._job.scheduler.on_trial_add(None, trial)
                self._callback.on_trial_start(iteration=position, trials=started, trial=trial)
            freed = 0.0
            if not running:
                break
            position += 1
            trial = running[position % len(running)]
            if self._epoch(trial):
                running.remove(trial)
                freed = time.perf_counter()
                self._job.scheduler.on_trial_complete(None, trial, {})
                self._queue.on_trial_complete(trial.trial_id)
                self._callback.on_trial_complete(iteration=position, trials=started, trial=trial)
        self._meter.driver_s += time.perf_counter() - began
        if self._callback.error is not None:
            raise self._callback.error

    def _epoch(self, trial: Any) -> bool:
        """Report the next epoch of a trial; return whether the trial ends."""
        meter = self._meter
        meter.events += 1
        trial.epoch += 1
        result = epoch_record(trial.epoch, self._epochs, rise=meter.events).as_dict()
        if self._job.stop_running({**result, "config": trial.config}):
            decision = "STOP"
        else:
            decision = self._job.scheduler.on_trial_result(None, trial, result)
        self._callback.on_trial_result(iteration=meter.events, trials=[], trial=trial, result=result)
        if meter.events % self._every == 0:
            meter.memory.append((meter.events, psutil.Process().memory_info().rss))
        return decision == "STOP" or trial.epoch == self._epochs


def _trial(trial_id: str, config: Mapping[str, Any]) -> Any:
    return SimpleNamespace(
        trial_id=trial_id,
        config=config,
        epoch=0,
        temporary_state=SimpleNamespace(ray_actor=None),
        error_file=None,
    )


def epoch_record(epoch: int, epochs: int, *, rise: int) -> EpochRecord:
    """Return a made-up epoch whose accuracy is above that of every record with a smaller `rise`."""
    accuracy = 0.9 - 0.6 / epoch + 1e-7 * rise
    return EpochRecord(
        epoch=epoch,
        epochs=epochs,
        step=391 * epoch,
        lr=0.1 * (1 - epoch / (epochs + 1)),
        train_loss=1.8 / epoch,
        train_accuracy=accuracy,
        validation_loss=1.9 / epoch,
        validation_accuracy=accuracy,
        grad_norm=1.0 + 1 / epoch,
        epoch_s=12.0,
        evaluation_s=0.5,
        images_per_s=4000.0,
        grad_norm_max=3.0 + 1 / epoch,
        overhead_s=0.1,
        loss_spikes=0,
        first_grad_norm=0.5 / epoch,
        last_grad_norm=0.2 / epoch,
        dead_units=0.01,
        feature_rank=30.0,
        weight_norm=50.0 + epoch,
    )


@contextmanager
def _measured_components(meter: Meter) -> Iterator[None]:
    """Measure the components of the driver while the block runs."""
    from rich.live import _RefreshThread

    from platform.console.live import LiveView
    from platform.tracking.mlflow_runs import MlflowObserver
    from platform.tracking.parquet_tables import TableWriter
    from platform.tracking.write_queue import WriteQueue
    from platform.tuning.journal.journal import Journal
    from platform.tuning.sampling.schedulers import EpochAsha
    from platform.tuning.sampling.study import Study

    events = ("trial_started", "epoch_finished", "trial_ended")
    places: list[tuple[str, Any, tuple[str, ...]]] = [
        ("journal", Journal, ("_append",)),
        ("study", Study, ("epoch", "ended")),
        ("ask", Study, ("ask",)),
        ("scheduler", EpochAsha, ("on_trial_result",)),
        ("tables", TableWriter, events),
        ("MLflow", MlflowObserver, events),
        ("console", LiveView, events),
    ]
    background: list[tuple[str, Any, tuple[str, ...]]] = [
        ("MLflow*", WriteQueue, ("_run",)),  # that of the tables runs on
        ("tables*", TableWriter, ("_save",)),
        ("console*", _RefreshThread, ("run",)),
    ]
    with ExitStack() as stack:
        for clock, kinds in ((time.perf_counter, places), (time.thread_time, background)):
            for name, owner, methods in kinds:
                for method in methods:
                    call = getattr(owner, method, None)
                    if call is not None:
                        stack.enter_context(mock.patch.object(owner, method, meter.timed(call, name, clock)))
        yield


def measure(trials: int, epochs: int) -> dict[str, Any]:
    """Run, resume and report one synthetic search; return its figures."""
    from platform.console.live import LiveView
    from platform.data.dataset import DatasetInfo
    from platform.reporting.page import write_report
    from platform.space.space_files import load_space
    from platform.tracking.events import Observers, SweepOutcome
    from platform.tracking.mlflow_runs import MlflowObserver
    from platform.tracking.mlflow_store import open_store
    from platform.tracking.parquet_tables import TableWriter
    from platform.tracking.sweep_folder import new_sweep_folder
    from platform.tuning import search_stage, training_stages
    from platform.tuning.planning.plan import make_plan
    from platform.tuning.start_sweep import open_sweep

    spec = load_space("resnet32_cifar", overrides=[f"trials={trials}", f"base.epochs={epochs}"])
    plan = make_plan(spec, [{"CPU": max(1, min(_SLOTS, trials // 2)), "GPU": 0}])
    meter = Meter()
    process = psutil.Process()
    with tempfile.TemporaryDirectory(prefix="driver-") as scratch, open(os.devnull, "w") as null:  # noqa: PTH123
        root = Path(scratch)
        uri = f"sqlite:///{root}/mlflow.db"
        open_store(uri)  # creates the tables, which takes seconds
        folder = new_sweep_folder(root, spec.name)
        info = DatasetInfo(
            name="cifar10",
            label="cifar10",
            sha256="0" * 64,
            class_names=tuple("abcdefghij"),
            train_images=50_000,
            test_images=10_000,
            image_shape=(3, 32, 32),
            path=root,
        )

        def run() -> tuple[float, float, float]:
            """Run what is left of the search; return all seconds, those after opening, and their CPU time."""
            before = time.perf_counter()
            with (
                LiveView(console=_console(null, live=False)) as lines,
                LiveView(console=_console(null, live=True)) as live,
            ):
                observers = Observers(
                    [TableWriter(folder), MlflowObserver(uri, close_timeout_s=600), lines, live]
                )
                sweep = open_sweep(spec, plan, folder, info, observers)
                opened, cpu_s = time.perf_counter(), time.process_time()
                training_stages.search(sweep)
                observers.sweep_ended(SweepOutcome(status="interrupted"))
            end = time.perf_counter()
            return end - before, end - opened, time.process_time() - cpu_s

        def run_trials(job: Any, context: Any, journal: Any) -> None:
            every = max(1, trials * epochs // _SAMPLES)
            SyntheticTuner(job, context, journal, epochs=epochs, meter=meter, every=every).fit()

        written = process.io_counters().write_chars
        with mock.patch.object(search_stage, "run_trials", run_trials), _measured_components(meter):
            _, wall_s, cpu_s = run()
        written = process.io_counters().write_chars - written
        seconds = dict(meter.seconds)
        memory = meter.memory
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        resume_s, _, _ = run()
        before = time.perf_counter()
        write_report(folder)
        report_s = time.perf_counter() - before
    middle = memory[len(memory) // 2]
    return {
        "trials": trials,
        "epochs": epochs,
        "slots": plan.search.concurrency,
        "events": meter.events,
        "wall_s": wall_s,
        "driver_s": meter.driver_s,
        "cpu_s": cpu_s,
        "component_s": seconds,
        "written_bytes": written,
        "memory_bytes": memory,
        "growth_bytes_per_event": (memory[-1][1] - middle[1]) / max(1, memory[-1][0] - middle[0]),
        "peak_bytes": peak,
        "turn_s": meter.turn_s,
        "resume_s": resume_s,
        "report_s": report_s,
    }


def _console(file: Any, *, live: bool) -> Any:
    from rich.console import Console

    return Console(file=file, force_terminal=live, width=120 if live else 4096, height=50, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size, print the tables, write the record."""
    parser = Parser("driver_scaling", "Measure the driver of a sweep with up to 1,000 trials.")
    add = parser.add_argument
    add("--trials", type=_sizes, default=[10, 100, 1000], metavar="N,N", help="default: 10,100,1000")
    add("--epochs", type=at_least(3), default=50, metavar="N", help="default: 50")
    given = parser.parse(arguments)
    where = record.context()
    results = []
    for trials in given.trials:
        say(f"{trials} trials x {given.epochs} epochs")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            results.append(pool.submit(measure, trials, given.epochs).result())
    print(table(where, results))
    if given.json:
        record.write(given.json, record.document("driver_scaling", where, {"epochs": given.epochs}, results))
    return 0


def _sizes(words: str) -> list[int]:
    return [at_least(2)(word) for word in words.split(",")]


def table(where: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Format the results: a line per size, and a line per size with the cost by component."""
    names = (
        *("trials", "events/s", "driver", "CPU ms", "KiB/event", "peak MiB"),
        *("KB written", "next, ms", "resume, s", "report, s"),
    )
    widths = (7, 9, 7, 7, 10, 9, 11, 14, 10, 10)
    header = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    lines = [record.describe(where), "", header]
    for row in results:
        turns = sorted(1000 * seconds for seconds in row["turn_s"][-_LATEST:]) or [0.0]
        lines.append(
            f"{row['trials']:7} {row['events'] / row['wall_s']:9.0f} {row['events'] / row['driver_s']:7.0f} "
            f"{1000 * row['cpu_s'] / row['events']:7.2f} "
            f"{row['growth_bytes_per_event'] / 1024:10.2f} {row['peak_bytes'] / 2**20:9.0f} "
            f"{row['written_bytes'] / row['events'] / 1000:11.1f} "
            f"{f'{statistics.median(turns):.1f} / {turns[-1]:.1f}':>14} "
            f"{row['resume_s']:10.1f} {row['report_s']:10.1f}"
        )
    components = list(dict.fromkeys(name for row in results for name in row["component_s"]))
    lines += ["", f"{'trials':>7} {'ms/event':>9} " + " ".join(f"{name:>10}" for name in components)]
    for row in results:
        cells = [f"{1000 * row['component_s'].get(name, 0.0) / row['events']:10.3f}" for name in components]
        lines.append(f"{row['trials']:7} {1000 * row['wall_s'] / row['events']:9.2f} " + " ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
