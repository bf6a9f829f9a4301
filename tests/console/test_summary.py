"""The final summary: the results on stderr, the path on stdout."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from platform.console.summary import final_summary
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.results import read_results
from platform.tracking.sweep_folder import SweepFolder
from tests.reporting.example_sweep import write_example, write_int8
from tests.tracking.examples import epoch, trial


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("finished"), trials=12)


def summary_of(folder, **options):
    console = Console(file=io.StringIO(), width=200)
    final_summary(folder, console=console, **options)
    return console.file.getvalue()


def test_a_finished_sweep(finished, capsys):
    text = summary_of(finished, tracking_uri="sqlite:////x/mlflow.db")
    assert capsys.readouterr().out == f"{finished.path}\n"
    for wanted in (
        "Best configuration: t",
        "Test accuracy: ",
        "(10,000 images, ",
        "12.10 ms",
        str(finished.export),
        "top-1 agreement 100.00 % on 256 images, largest logit difference 9.5e-06 (largest logit 11.2)",
        "python -m platform.ui --tracking-uri sqlite:////x/mlflow.db",
        "1 trial failed (t009)",
    ):
        assert wanted in text
    assert "QUICK" not in text


def test_paths_in_a_pipe_are_not_wrapped(finished):
    console = Console(file=io.StringIO(), width=40)
    final_summary(finished, console=console)
    assert str(finished.export) in console.file.getvalue()
    assert str(finished.trials) in console.file.getvalue()


def test_a_lower_precision_is_shown_with_its_accuracy(tmp_path):
    folder = write_example(tmp_path, trials=5)
    write_int8(folder)
    text = summary_of(folder)
    assert "test accuracy 93.91 % (fp32: 94.12 %)" in text
    assert str(folder.path / "export-int8") in text


def test_an_interrupted_quick_sweep(tmp_path):
    without = ("selection", "champion", "test", "export", "benchmark")
    folder = write_example(tmp_path, trials=5, without=without, quick=True, generated=True)
    text = summary_of(folder)
    assert "QUICK SWEEP" in text
    assert "GENERATED DATA" in text
    assert "not yet confirmed over several seeds" in text
    assert "model folder" not in text


def test_quiet_prints_the_path_only(finished, capsys):
    final_summary(finished, quiet=True)
    assert capsys.readouterr() == (f"{finished.path}\n", "")


def test_the_planned_and_the_actual_times_of_the_stages(finished):
    text = summary_of(finished)
    rows = [line.split("  ") for line in text.splitlines()]
    names = [row[0] for row in rows if len(row) > 3]
    for name in ("time", "search", "confirmation", "final training", "whole sweep"):
        assert name in names
    [search] = [[cell.strip() for cell in row if cell.strip()] for row in rows if row[0] == "search"]
    assert search[1] == "1 h 23 min"
    assert search[3].endswith(" %")


def test_the_pause_of_an_interrupted_sweep_is_not_part_of_a_stage(tmp_path):
    folder = SweepFolder(tmp_path)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    # The time of each event: 50 s in the first start, and 50 s an hour later.
    times = iter(noon + timedelta(seconds=second) for second in (0, 50, 3650, 3700, 3700))
    writer = TableWriter(folder, now=lambda: next(times))
    writer.trial_started(trial(0))
    writer.epoch_finished(trial(0), epoch(1))
    writer.flush()
    writer = TableWriter(folder, now=lambda: next(times))
    writer.trial_started(trial(0))
    writer.epoch_finished(trial(0), epoch(2))
    times = iter((noon + timedelta(seconds=3700),) * 2)
    writer.trial_ended(trial(0), TrialStatus.FINISHED)
    writer.flush()
    [search] = read_results(folder).stage_times()
    assert search == ("search", None, 100.0)


def test_a_clock_set_back_between_two_starts_gives_no_negative_time(tmp_path):
    folder = SweepFolder(tmp_path)
    for clock in (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 1, 11, tzinfo=UTC)):
        writer = TableWriter(folder, now=lambda clock=clock: clock)
        writer.trial_started(trial(0))
        writer.epoch_finished(trial(0), epoch(1))
        writer.flush()
    writer.trial_ended(trial(0), TrialStatus.FINISHED)
    writer.flush()
    assert read_results(folder).stage_times() == [("search", None, 0.0)]
