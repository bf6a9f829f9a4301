"""The live view of a running sweep on a terminal and in a log file."""

import io
import threading

import pytest
from rich.console import Console

from platform.console.frame import stage_text
from platform.console.live import LiveView, stderr_console
from platform.console.progress import SweepProgress
from platform.console.remaining_time import RemainingTime
from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.sweep_folder import SweepFolder
from tests.tracking.examples import epoch, sweep, trial


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def progress(clock):
    return SweepProgress(clock)


def plain_console():
    return Console(file=io.StringIO(), width=200, highlight=False)


def terminal():
    return Console(
        file=io.StringIO(), width=120, height=40, force_terminal=True, color_system=None, highlight=False
    )


def text_of(console):
    return console.file.getvalue()


def run_one(observer, one, clock, *, epochs=3, status=TrialStatus.FINISHED, accuracy=None, error=None):
    observer.trial_started(one)
    for number in range(1, epochs + 1):
        clock.now += 10
        observer.epoch_finished(one, epoch(number, accuracy=accuracy))
    observer.trial_ended(one, status, error=error)


def test_completed_trials_rank_before_pruned_ones(tmp_path, progress, clock):
    progress.sweep_started(sweep(tmp_path))
    run_one(progress, trial(0), clock, accuracy=0.5)
    run_one(progress, trial(1), clock, epochs=1, accuracy=0.9, status=TrialStatus.PRUNED)
    run_one(progress, trial(2), clock, accuracy=0.6)
    assert [ended.trial_id for ended in progress.leaderboard()] == ["t002", "t000", "t001"]


def test_the_remaining_time_is_extrapolated(tmp_path, progress, clock):
    progress.sweep_started(sweep(tmp_path, trials=4))
    assert progress.remaining_time() is None
    run_one(progress, trial(0), clock)
    assert progress.remaining_time() == RemainingTime(seconds=pytest.approx(90), whole=False)
    progress.trial_started(trial(1))
    clock.now += 15
    progress.epoch_finished(trial(1), epoch(1))
    # 45 s for a trial and a third; two and two thirds are left.
    assert progress.remaining_time().seconds == pytest.approx(45 / (4 / 3) * (8 / 3))


def test_a_resume_ranks_earlier_trials_and_leaves_them_out_of_the_remaining_time(tmp_path, progress, clock):
    writer = TableWriter(SweepFolder(tmp_path))
    for number in (0, 1):
        writer.epoch_finished(trial(number), epoch(3, accuracy=0.4 + number / 10))
        writer.trial_ended(trial(number), TrialStatus.FINISHED)
    writer.epoch_finished(trial(2), epoch(1))
    writer.flush()
    progress.sweep_started(sweep(tmp_path, trials=4))
    assert [ended.trial_id for ended in progress.leaderboard()] == ["t001", "t000"]
    progress.trial_started(trial(2))
    clock.now += 20
    progress.epoch_finished(trial(2), epoch(2))
    # This start did one third of trial 2; one third of it and all of trial 3 are left.
    assert progress.remaining_time().seconds == pytest.approx(20 / (1 / 3) * (4 - 2 - 2 / 3), rel=1e-6)


def test_without_a_terminal_each_event_is_one_line(tmp_path, progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    with view, view.phase("starting Ray"):
        pass
    info = sweep(tmp_path, tags={"quick": "true", "generated_data": "true"})
    view.sweep_started(info)
    run_one(view, trial(0), clock, accuracy=0.5)
    failed = "Traceback (most recent call last):\n  ...\nValueError: the loss is NaN\nlog: /runs/t001.log"
    run_one(view, trial(1), clock, epochs=1, accuracy=0.2, status=TrialStatus.FAILED, error=failed)
    view.sweep_ended(SweepOutcome(status="finished"))
    lines = text_of(console).splitlines()
    assert lines[0] == "… starting Ray"
    assert lines[2].startswith("QUICK SWEEP")
    assert lines[3].startswith("GENERATED DATA")
    assert lines[4] == "search"
    assert lines[5] == (
        "t000  finished  val 50.00 %  3 epochs in 30 s  sgd lr=0.1  "
        "1/4, best t000 50.00 %, search: about 2 min left"
    )
    assert "failed" in lines[6]
    assert "ValueError: the loss is NaN; log: /runs/t001.log" in lines[6]
    assert len(lines) == 7


def test_the_counter_of_a_phase_is_one_line_per_ten_seconds_in_a_log(progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    for done in range(1, 25):
        clock.now += 1
        view.set_phase(f"building the engine [{done}/269] 2 min left")
    for done in range(0, 50_000, 5000):
        view.set_phase(f"converting: {done:,} of 50,000 images, {'2 min 01 s' if done else '3 s'} left")
    view.set_phase("measuring the latency")
    assert text_of(console).splitlines() == [
        "… building the engine [1/269] 2 min left",
        "… building the engine [11/269] 2 min left",
        "… building the engine [21/269] 2 min left",
        "… converting: 0 of 50,000 images, 3 s left",
        "… measuring the latency",
    ]


def test_a_long_phase_is_a_line_per_minute_in_a_log(progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    view.set_phase("exporting to ncnn")
    for clock.now in range(1, 130):
        view._tick()
    assert text_of(console).splitlines() == [
        "… exporting to ncnn",
        "… exporting to ncnn  (1 min 00 s)",
        "… exporting to ncnn  (2 min 00 s)",
    ]


def test_epochs_are_a_line_per_minute_in_a_log_and_long_epochs_are_not_silent(tmp_path, progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    view.sweep_started(sweep(tmp_path))
    view.trial_started(trial(0))
    for number in range(1, 13):
        clock.now += 20
        view.epoch_finished(trial(0), epoch(number, epochs=100, accuracy=0.5))
    for _ in range(301):
        clock.now += 1
        view._tick()
    assert text_of(console).splitlines()[1:] == [
        "search",
        "1:00 elapsed  search, trial 1 of 4  t000 epoch 3/100 val 50.00 %",
        "2:00 elapsed  search, trial 1 of 4  t000 epoch 6/100 val 50.00 %",
        "3:00 elapsed  search, trial 1 of 4  t000 epoch 9/100 val 50.00 %",
        "4:00 elapsed  search, trial 1 of 4  t000 epoch 12/100 val 50.00 %  search: about 2.2 h left",
        "9:00 elapsed  search, trial 1 of 4  1 run  search: about 4.5 h left",
    ]


def test_a_log_says_which_candidate_an_epoch_belongs_to(tmp_path, progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    view.sweep_started(sweep(tmp_path))
    runs = [
        trial(number, stage="confirm", trial_id=f"c{number}-s0", candidate=f"t00{number}")
        for number in (1, 2)
    ]
    for run in runs:
        view.trial_started(run)
    clock.now += 60
    view.epoch_finished(runs[0], epoch(1, epochs=3, accuracy=0.5))
    line = text_of(console).splitlines()[-1]
    assert line.startswith("1:00 elapsed  confirmation, run 2")
    assert "  c1-s0 (candidate t001, seed 1) epoch 1/3" in line
    assert "t002" not in line


def test_the_terminal_view_shows_all_parts(tmp_path, progress, clock):
    view = LiveView(console=terminal(), progress=progress)
    progress.sweep_started(sweep(tmp_path, trials=4, tags={"quick": "true"}))
    run_one(progress, trial(0), clock, accuracy=0.5)
    run_one(progress, trial(1), clock, epochs=1, accuracy=0.2, status=TrialStatus.PRUNED)
    progress.trial_started(trial(2))
    progress.epoch_finished(trial(2), epoch(1, accuracy=0.33))
    progress.trial_started(trial(3, params={"optimizer": "adam"}))
    # set_phase would start the live display.
    view._phase = ("building the engine [120/269] 2 min left", 0.0)
    console = terminal()
    console.print(view.render())
    shown = text_of(console)
    for wanted in (
        "QUICK SWEEP",
        "search, trial 4 of 4   2 done (1 stopped)",
        "best t000 50.00 %",
        "sgd lr=0.1",
        "1/3  33.00 %  1,000",
        "start",
        "building the engine [120/269] 2 min left",
    ):
        assert wanted in shown


def test_the_terminal_is_restored(tmp_path, clock, progress):
    console = terminal()
    before = set(threading.enumerate())
    with LiveView(console=console, progress=progress) as view:
        view.sweep_started(sweep(tmp_path))
        run_one(view, trial(0), clock, accuracy=0.5)
        drawing = set(threading.enumerate()) - before
        assert drawing
    for thread in drawing:
        thread.join(30)
        assert not thread.is_alive()
    assert text_of(console).count("\x1b[?25l") == text_of(console).count("\x1b[?25h") == 1
    view.set_phase("after the end")
    assert "after the end" in text_of(console).splitlines()[-1]
    assert not set(threading.enumerate()) - before


def test_a_failed_trial_stays_above_the_live_view(tmp_path, clock, progress):
    console = terminal()
    with LiveView(console=console, progress=progress) as view:
        view.sweep_started(sweep(tmp_path))
        run_one(view, trial(0), clock, status=TrialStatus.FAILED, error="ValueError: no")
    assert "ValueError: no" in text_of(console)


def test_markup_in_names_and_errors_is_text(tmp_path, clock, progress):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    view.sweep_started(sweep(tmp_path))
    run_one(view, trial(0, params={"x": "[red]"}), clock, status=TrialStatus.FAILED, error="E: [/bold] oops")
    assert "[/bold] oops" in text_of(console)
    assert "[red]" in text_of(console)


def test_quiet_prints_nothing(tmp_path, clock, capsys):
    view = LiveView(quiet=True)
    view.set_phase("starting Ray")
    view.sweep_started(sweep(tmp_path))
    run_one(view, trial(0), clock)
    view.sweep_ended(SweepOutcome(status="failed", message="no"))
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_stderr_without_color_for_a_file(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    LiveView(console=stderr_console()).set_phase("starting Ray")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "… starting Ray\n"


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert stderr_console().no_color


def test_background_work_is_shown_under_the_header(tmp_path, progress):
    view = LiveView(console=terminal(), progress=progress)
    view.set_background(lambda: "building ncnn 120/269")
    progress.sweep_started(sweep(tmp_path))
    console = terminal()
    console.print(view.render())
    assert "building ncnn 120/269" in text_of(console)
    view.set_background(lambda: None)
    console = terminal()
    console.print(view.render())
    assert "building ncnn" not in text_of(console)


def test_background_work_is_one_line_per_half_minute_in_a_log(progress, clock):
    console = plain_console()
    view = LiveView(console=console, progress=progress)
    view.set_background(lambda: f"building ncnn {int(clock.now // 10)}/9")
    for clock.now in range(0, 70, 5):
        view._tick()
    view.set_background(lambda: "building ncnn 6/9")
    clock.now = 100
    view._tick()
    assert text_of(console).splitlines() == [
        "… building ncnn 0/9",
        "… building ncnn 3/9",
        "… building ncnn 6/9",
    ]


def test_every_line_of_the_confirmation_fits_eighty_columns(tmp_path, progress, clock):
    stages = {"search": (6, 2), "confirm": (6, 2), "final": (1, 1)}
    plan = {
        "rungs": [1, 3],
        "within": {"budget_s": 300.0},
        **{
            stage: {"runs": runs, "concurrency": slots, "workers": 1, "epochs": 3}
            for stage, (runs, slots) in stages.items()
        },
    }
    folder = tmp_path / "resnet18_cifar-20260101-120000"
    folder.mkdir()
    progress.sweep_started(sweep(folder, trials=6, plan=plan))
    for number, stop in enumerate((3, 3, 1, 1, 3, 3)):
        params = {
            "optimizer": "sgd",
            "optimizer.sgd.lr": 0.1 + number,
            "batch_size": 64,
            "schedule": "cosine",
        }
        status = TrialStatus.FINISHED if stop == 3 else TrialStatus.PRUNED
        run_one(progress, trial(number, params=params), clock, epochs=stop, accuracy=0.5, status=status)
    assert [(rung.epoch, rung.reached, rung.stopped) for rung in progress.rungs()] == [(1, 6, 2), (3, 4, 0)]
    for number, accuracy in enumerate((0.6, 0.61, 0.62, 0.7)):
        run = trial(
            number, stage="confirm", trial_id=f"c{number // 3}-s{number % 3}", candidate=f"t00{number // 3}"
        )
        run_one(progress, run, clock, accuracy=accuracy)
    progress.trial_started(trial(4, stage="confirm", trial_id="c1-s1", candidate="t001"))
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True, color_system=None)
    console.print(LiveView(console=console, progress=progress).render())
    lines = text_of(console).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert lines[0].split("   ")[:2] == ["resnet18_cifar-20260101-120000", "4:20 of 5:00"]
    assert lines[1] == "confirmation, run 5 of 6: candidate t001, seed 2   slots 1 of 2"
    # The expected accuracies, which lie closer together than the means, and their intervals.
    assert lines[3] == "best t001 57.64 ± 9.22 % n=1"
    text = "\n".join(line.rstrip() for line in lines)
    assert "t001  50.00 %  57.64 ± 9.22 % n=1  lr=1.1\n" in text
    assert "t000  50.00 %  57.25 ± 7.46 % n=3  lr=0.1\n" in text
    progress.trial_started(trial(5, stage="confirm", trial_id="c2-s0", candidate="t002"))
    assert stage_text(progress) == "confirmation, run 6 of 6", "names no run while several are running"
    # The cursor must not be at the end of a full line, where the terminal's ^C would start a new one.
    assert lines[-1] == ""


def test_a_narrower_terminal_clears_the_lines_that_it_wraps(tmp_path, progress):
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True, color_system=None)
    view = LiveView(console=console, progress=progress)
    progress.sweep_started(sweep(tmp_path))
    progress.trial_started(trial(0))
    wide = console.render_lines(view.render(), pad=False)
    view._frame_for_live()
    assert text_of(console) == ""
    console.width = 40
    view._frame_for_live()
    lengths = [sum(segment.cell_length for segment in line) for line in wide]
    wrapped = sum(max(0, (length - 1) // 40) for length in lengths)
    assert wrapped > 0
    assert text_of(console) == "\x1b[2K\x1b[1A" * wrapped
    view._frame_for_live()
    assert text_of(console).count("\x1b[1A") == wrapped


def test_a_stop_is_announced_once_in_the_view_of_a_terminal(tmp_path, progress):
    view = LiveView(console=plain_console(), progress=progress)
    assert not view.stop_requested(), "the signal handler prints the message"
    console = terminal()
    with LiveView(console=console, progress=progress) as view:
        view.sweep_started(sweep(tmp_path))
        assert view.stop_requested()
        frame = terminal()
        frame.print(view.render())
        assert "stopping; press Ctrl-C again to stop immediately" in text_of(frame)
        view.trial_started(trial(0))
        view.trial_ended(trial(0), TrialStatus.INTERRUPTED)
        view.sweep_ended(SweepOutcome(status="interrupted", message="resume with: ..."))
    assert "resume with" not in text_of(console)
