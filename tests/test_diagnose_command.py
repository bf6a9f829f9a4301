"""`python -m platform.diagnose` for every kind of run."""

import pytest

from platform.common.errors import UsageError, UserError
from platform.diagnose import main, sparkline
from platform.space.space_files import load_run
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.sweep_folder import SweepFolder
from platform.training.run_folder import RunRequest, write_metrics, write_request
from tests.tracking.examples import epoch, run_config, trial

LEAP = [1.0, 0.9, 2.5]


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a run whose loss rose in its third epoch of four."""
    folder = tmp_path / "train-run"
    write_request(folder, RunRequest(space="resnet32_cifar", config=run_config(epochs=4)))
    write_metrics(folder, [epoch(number, train_loss=loss) for number, loss in enumerate(LEAP, start=1)])
    return folder


def test_a_run_folder_gets_settings_that_its_configuration_accepts(run_folder, capsys):
    assert main([str(run_folder)]) == 0
    out = capsys.readouterr().out
    assert "train-run: 1 finding in 3 epochs" in out
    assert "divergence (serious), from epoch 3" in out
    assert "evidence: training loss ended at 2.500, after 0.900 in epoch 2" in out
    assert "train_loss          ▁▁█ 1 to 2.5" in out
    assert "why: steps larger than" in out
    [options] = [line.split("--set ")[1] for line in out.splitlines() if "--set" in line]
    assert options == "optimizer.lr=0.033 clip_grad_norm=1 schedule.warmup_epochs=1"
    changed = load_run("resnet32_cifar", overrides=[f"base.{option}" for option in options.split()])
    assert changed.optimizer.lr == 0.033


def test_a_csv_file_of_another_program(tmp_path, capsys):
    path = tmp_path / "losses.csv"
    path.write_text(
        "Epoch,Loss,Val Loss,val_acc,note\n"
        + "".join(f"{n},{2.0 / n},{1.0 + 0.2 * abs(n - 3)},{20 + n},x\n" for n in range(1, 11))
    )
    assert main([str(path)]) == 0
    out = capsys.readouterr().out
    assert "overfitting (warning), from epoch 4" in out
    assert "validation loss rose from 1.000 (epoch 3) to 2.400" in out
    assert "--set" not in out
    assert "nan" not in out


def test_all_trials_of_a_sweep_or_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(tmp_path / "runs" / "resnet32_cifar-20260101-120000")
    folder.path.mkdir(parents=True)
    writer = TableWriter(folder)
    for number, losses in enumerate((LEAP, [1.0, 0.99, 0.98])):
        one = trial(number)
        writer.trial_started(one)
        for index, loss in enumerate(losses, start=1):
            writer.epoch_finished(one, epoch(index, train_loss=loss, validation_loss=loss))
        writer.trial_ended(one, TrialStatus.FINISHED)
    writer.flush()
    folder.spec.write_text("")
    folder.set_state("finished")
    assert main([folder.sweep_id]) == 0
    out = capsys.readouterr().out
    assert f"{folder.sweep_id} t000: 1 finding" in out
    assert f"{folder.sweep_id} t001: no findings in 3 epochs" in out
    assert main([folder.sweep_id, "t001"]) == 0
    assert "t000" not in capsys.readouterr().out
    with pytest.raises(UsageError, match="has no trial 't009'; its trials are: t000, t001"):
        main([folder.sweep_id, "t009"])


def test_a_run_in_mlflow(tmp_path, capsys):
    from platform.tracking.mlflow_store import open_store

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = open_store(uri)
    run = client.create_run("0", run_name="other")
    for number, loss in enumerate(LEAP, start=1):
        client.log_metric(run.info.run_id, "train_loss", loss, step=number)
        client.log_metric(run.info.run_id, "lr", 0.1, step=number)
    assert main([run.info.run_id, "--tracking-uri", uri]) == 0
    assert "other: 1 finding in 3 epochs\n\ndivergence (serious), from epoch 3" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no run 0{32} in sqlite"):
        main(["0" * 32, "--tracking-uri", uri])
    with pytest.raises(UserError, match="there is no MLflow database"):
        main(["0" * 32, "--tracking-uri", f"sqlite:///{tmp_path}/other.db"])
    assert not (tmp_path / "other.db").exists()


def test_errors_name_the_next_step(tmp_path, run_folder):
    with pytest.raises(UserError, match="must be a folder, or an id under"):
        main([str(tmp_path / "missing")])
    with pytest.raises(UsageError, match="TRIAL is for sweeps"):
        main([str(run_folder), "t000"])
    path = tmp_path / "losses.csv"
    path.write_text("step,value\n1,2\n")
    with pytest.raises(
        UsageError, match=r"must have a column train_loss \(or loss, .*its columns are: step, value"
    ):
        main([str(path)])
    path.write_text("loss\nmany\n")
    with pytest.raises(UserError, match="column 'loss' must hold numbers, got 'many'"):
        main([str(path)])
    (run_folder / "metrics.csv").unlink()
    with pytest.raises(UserError, match="has not finished an epoch"):
        main([str(run_folder)])


def test_a_sparkline_has_at_most_60_bars_and_a_log_scale_over_two_decades():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, float("nan"), 2]) == "▁ █"
    assert sparkline([1e-4, 1e-2, 1]) == "▁▄█"
    assert sparkline([3, 3]) == "▁▁"
    assert sparkline([]) == ""
    long = sparkline([0.0] * 500 + [1.0] + [0.0] * 499)
    assert len(long) == 60
    assert long.count("█") == 1
