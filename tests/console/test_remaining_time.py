"""The remaining time of a sweep, on synthetic streams of events with their own clock."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from platform.console.live import LiveView
from platform.console.progress import SweepProgress
from platform.console.remaining_time import (
    HAND_OVER,
    STAGES,
    RemainingTime,
    StageProgress,
    remaining_time,
)
from platform.tracking.events import TrialStatus
from tests.console.test_live import Clock, plain_console
from tests.tracking.examples import epoch, run_config, sweep, trial

EPOCHS = 4
RUNS = {"search": 8, "confirm": 6, "final": 1}
SLOTS = {"search": 2, "confirm": 2, "final": 1}
HAND_OVER_S = 60.0


def plan(epoch_s: float = 10.0) -> dict:
    """Return a plan in which each stage takes its rounds of runs, and a minute is left for the hand-over."""
    walls = {stage: RUNS[stage] / SLOTS[stage] * EPOCHS * epoch_s for stage in STAGES}
    return {
        **{
            stage: {"runs": RUNS[stage], "concurrency": SLOTS[stage], "workers": 1, "epochs": EPOCHS}
            for stage in STAGES
        },
        "estimate": {
            **{stage: {"wall_s": walls[stage], "epoch_s": epoch_s} for stage in STAGES},
            "wall_s": sum(walls.values()) + HAND_OVER_S,
        },
    }


def events(progress: SweepProgress, clock: Clock, *, epoch_s: float) -> Iterator[None]:
    """Run a whole sweep whose epochs take `epoch_s`, and yield after each second."""

    def wait(seconds: float) -> Iterator[None]:
        for _ in range(round(seconds)):
            clock.now += 1
            yield

    config = run_config(epochs=EPOCHS)
    for stage in STAGES:
        for first in range(0, RUNS[stage], SLOTS[stage]):
            runs = [
                trial(number, stage=stage, trial_id=f"{stage}{number}", candidate="t000", config=config)
                for number in range(first, min(first + SLOTS[stage], RUNS[stage]))
            ]
            for run in runs:
                progress.trial_started(run)
            for number in range(1, EPOCHS + 1):
                yield from wait(epoch_s)
                for run in runs:
                    progress.epoch_finished(
                        run, epoch(number, epochs=EPOCHS, epoch_s=epoch_s, evaluation_s=0)
                    )
            for run in runs:
                progress.trial_ended(run, TrialStatus.FINISHED)
    for phase, share in HAND_OVER.items():
        progress.phase_started(phase)
        # A busy machine is slow in these phases too.
        yield from wait(share * HAND_OVER_S * max(1.0, epoch_s / 10))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_time_left_is_right_at_any_speed(tmp_path: Path, factor: float) -> None:
    clock = Clock()
    progress = SweepProgress(clock)
    progress.sweep_started(sweep(tmp_path, trials=8, plan=plan()))
    seen = [
        (clock.now, left.seconds)
        for _ in events(progress, clock, epoch_s=10 * factor)
        if (left := progress.remaining_time()) is not None
    ]
    total_s = clock.now
    assert len(seen) == total_s
    assert all(left >= 0 for _, left in seen)
    late = [(now, left) for now, left in seen if now > 80 * factor]
    # After the first runs, the error stays within a tenth of the sweep.
    assert max(abs(now + left - total_s) for now, left in late) < 0.1 * total_s
    # It may correct itself upward, but not by much.
    assert max(after - before for (_, before), (_, after) in itertools.pairwise(late)) < 0.03 * total_s
    assert seen[-1][1] == pytest.approx(0, abs=1.5)


def test_an_idle_machine_as_planned_counts_down_by_the_second(tmp_path: Path) -> None:
    clock = Clock()
    progress = SweepProgress(clock)
    progress.sweep_started(sweep(tmp_path, trials=8, plan=plan()))
    for _ in events(progress, clock, epoch_s=10):
        left = progress.remaining_time()
        assert left is not None
        # The part of an epoch that is counted without its record is at most 95 %.
        assert clock.now + left.seconds == pytest.approx(380, abs=2)


def test_trials_stopped_early_shorten_the_search() -> None:
    estimate = plan()["estimate"]

    def left(done: tuple[float, ...]) -> float:
        stages = {stage: StageProgress(runs=RUNS[stage], slots=SLOTS[stage]) for stage in STAGES}
        stages["search"] = StageProgress(runs=8, slots=2, done=done)
        found = remaining_time(estimate, stages)
        assert found is not None
        return found.seconds

    assert left(()) == 380
    assert left((1.0,) * 4) == 380 - 80
    assert left((1.0,) * 7 + (0.5,)) == pytest.approx(380 - 160 + 20)
    assert left((1.0,) * 8) == left((1.0,) * 9) == 380 - 160


def test_a_phase_that_takes_longer_than_planned_leaves_the_later_ones(tmp_path: Path) -> None:
    clock = Clock()
    progress = SweepProgress(clock)
    progress.sweep_started(sweep(tmp_path, trials=8, plan=plan()))
    progress.phase_started("exporting to ncnn")
    clock.now += 1000
    later = HAND_OVER_S * (1 - HAND_OVER["evaluating on the test split"] - HAND_OVER["exporting to ncnn"])
    assert progress.remaining_time() == RemainingTime(seconds=pytest.approx(later), whole=True)


def test_the_log_shows_the_time_left_of_the_sweep(tmp_path: Path) -> None:
    clock, console = Clock(), plain_console()
    view = LiveView(console=console, progress=SweepProgress(clock))
    view.sweep_started(sweep(tmp_path, trials=8, plan=plan()))
    view.trial_started(trial(0))
    with view.phase("evaluating on the test split"):
        pass
    lines = console.file.getvalue().splitlines()
    assert lines[1:] == [
        "search: 8 runs  (sweep: about 6 min left)",
        "… evaluating on the test split  (sweep: about 1 min left)",
    ]


def test_the_hand_over_has_the_phases_of_the_sweep() -> None:
    assert sum(HAND_OVER.values()) == pytest.approx(1)
    source = (Path(__file__).parents[2] / "platform" / "sweep.py").read_text()
    phases = re.findall(r'view\.phase\(f?"([a-z ]+)', source, flags=re.IGNORECASE)
    after_training = phases[phases.index("evaluating on the test split") :]
    assert [phase for phase in after_training if phase in HAND_OVER] == list(HAND_OVER)
