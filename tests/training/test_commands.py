"""The commands platform.train, platform.evaluate and platform.predict."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import platform.evaluate
import platform.predict
import platform.train
from platform.common.errors import UsageError, UserError
from platform.training.run_folder import read_request

ROOT = Path(__file__).parents[2]
RECIPE = """\
about: A run that takes a second.
base:
  model: {name: resnet32_cifar}
  data: {name: generated, train_limit: 96, validation_size: 500}
  epochs: 2
  batch_size: 32
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
  schedule: {name: cosine}
"""
Command = Callable[..., str]


def metrics_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to a folder with a recipe; images are generated once for all tests here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `python -m NAME ARGUMENTS...` here and returns its stdout."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        assert sys.modules[name].main() == 0
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Return the folder of a finished run."""
    root = tmp_path_factory.mktemp("trained")
    (root / "tiny.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(sys, "argv", ["platform.train", str(root / "tiny.yaml"), "--output", str(root / "run")])
        assert platform.train.main() == 0
    return root / "run"


def test_a_run_writes_its_files(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"run.json", "metrics.csv", "curves.svg", "record.json", "last.pt", "model.pt"}
    rows = metrics_of(trained)
    record = json.loads((trained / "record.json").read_text())
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["validation_loss"]) == record["epochs"][1]["validation_loss"]
    assert record["config"]["model"]["name"] == "resnet32_cifar"
    assert record["data"]["train_images"] == 96
    svg = (trained / "curves.svg").read_text()
    assert "loss (nats)" in svg
    assert "validation" in svg


def test_findings_are_printed_and_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tiny.yaml", "--set", "optimizer.lr=1e-9", "--output", "underfitted"]
    monkeypatch.setattr(sys, "argv", ["platform.train", *arguments])
    assert platform.train.main() == 0
    [finding] = json.loads((folder / "underfitted" / "record.json").read_text())["findings"]
    assert finding["name"] == "underfitting"
    assert f"underfitting: {finding['evidence']}. Try: " in capsys.readouterr().err


def test_evaluate_reproduces_the_validation_results_and_writes_its_files(
    trained: Path, folder: Path, command: Command
) -> None:
    out = command("platform.evaluate", str(trained), "--split", "validation", "--precision", "auto",
                  "--output", "evaluation")  # fmt: skip
    record = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    last = json.loads((trained / "record.json").read_text())["epochs"][-1]
    assert record["accuracy"] == pytest.approx(last["validation_accuracy"])
    assert record["loss"] == pytest.approx(last["validation_loss"], rel=1e-4)
    assert sum(map(sum, record["confusion"])) == record["data"]["images"]
    assert f"top-1 accuracy {100 * record['accuracy']:.2f} %" in out
    flip = record["test_time_flip"]
    assert (
        f"top-1 accuracy with test-time flip {100 * flip['accuracy']:.2f} %, loss {flip['loss']:.4f}" in out
    )
    assert (folder / "evaluation" / "confusion.svg").read_text().startswith("<?xml")


def test_predict_prints_the_top_classes_of_images_of_any_size(
    trained: Path, folder: Path, command: Command
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 91, 3)).astype(np.uint8)
    Image.fromarray(image).save(folder / "a.png")
    Image.fromarray(image[:7, :9]).save(folder / "b.jpg")
    lines = command("platform.predict", str(trained), "a.png", "b.jpg").splitlines()
    assert len(lines) == 12
    assert (lines[0], lines[6]) == ("a.png", "b.jpg")
    shares = [float(line.split()[-2]) for line in lines[1:6]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.1


@pytest.mark.parametrize("name", ["platform.evaluate", "platform.predict"])
def test_a_folder_without_a_model_is_rejected(name: str, folder: Path, command: Command) -> None:
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    arguments = [".", "a.png"] if name == "platform.predict" else ["."]
    with pytest.raises(UserError, match=r"has no model\.pt: give the folder of a finished run"):
        command(name, *arguments)


def test_a_text_file_is_rejected_as_an_image(trained: Path, folder: Path, command: Command) -> None:
    with pytest.raises(UserError, match=r"tiny\.yaml is not an image"):
        command("platform.predict", str(trained), "tiny.yaml")


def test_command_line_settings_and_seed_apply_to_the_run(folder: Path, command: Command) -> None:
    command(
        "platform.train",
        "tiny.yaml",
        "--set",
        "epochs=1",
        "optimizer.lr=0.01",
        "--seed",
        "7",
        "--accumulate",
        "2",
        "--output",
        "run",
    )
    config = read_request(folder / "run").config
    assert (config.epochs, config.optimizer.lr, config.seed) == (1, 0.01, 7)
    assert len(metrics_of(folder / "run")) == 1
    execution = json.loads((folder / "run" / "record.json").read_text())["execution"]
    assert execution == {"accumulate": 2, "compile_s": None, "captured": False}


def test_the_folder_of_a_run_is_not_overwritten(trained: Path, folder: Path, command: Command) -> None:
    with pytest.raises(UsageError, match="already contains a run: continue it with --resume"):
        command("platform.train", "tiny.yaml", "--output", str(trained))


def test_commands_in_messages_quote_a_folder_with_a_space(
    trained: Path, folder: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, folder / "my run")
    command("platform.train", "--resume", "my run")
    with pytest.raises(UsageError, match="--resume 'my run', or"):
        command("platform.train", "tiny.yaml", "--output", "my run")
    (folder / "my run" / "model.pt").unlink()
    with pytest.raises(UserError, match="--resume 'my run'"):
        command("platform.evaluate", "my run")


def test_resume_rejects_changed_settings(trained: Path, folder: Path, command: Command) -> None:
    with pytest.raises(UsageError, match="--resume continues a run unchanged"):
        command("platform.train", "--resume", str(trained), "--seed", "1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.yaml", "--set", "epohcs=1"], "unknown setting 'epohcs' (did you mean 'epochs'?)"),
        (["tiny.yaml", "--set", "optimizer.name=sdg"], "did you mean 'sgd'?"),
        (["resnet32_cfar"], "did you mean 'resnet32_cifar'?"),
        (["tiny.yaml", "--ouptut", "run"], "--output"),
    ],
    ids=str,
)
def test_a_typo_gets_a_suggestion_before_torch_is_loaded(
    folder: Path, arguments: list[str], message: str
) -> None:
    (folder / "search_spaces").mkdir()
    (folder / "search_spaces" / "resnet32_cifar.yaml").write_text(RECIPE)
    # Importing this torch fails, so the error message must not need it.
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    done = subprocess.run(
        [sys.executable, "-m", "platform.train", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "runs").exists()


def test_a_resume_with_another_number_of_workers_is_announced(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = json.loads((trained / "run.json").read_text())
    monkeypatch.setattr(sys, "argv", ["platform.train", "--resume", str(trained)])
    for workers, announced in ((1, False), (2, True)):
        (trained / "run.json").write_text(json.dumps({**request, "workers": workers}))
        assert platform.train.main() == 0
        note = f"note: this run began with {workers} workers and continues with 1"
        assert (note in capsys.readouterr().err) == announced
        assert json.loads((trained / "run.json").read_text())["workers"] == workers
    (trained / "run.json").write_text(json.dumps(request))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_prints_its_resume_command_and_resumes(
    folder: Path, command: Command, number: signal.Signals
) -> None:
    arguments = ["tiny.yaml", "--set", "epochs=15", "--output", "run"]
    with subprocess.Popen(
        [sys.executable, "-m", "platform.train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:
        metrics = folder / "run" / "metrics.csv"
        deadline_s = time.monotonic() + 300
        while not metrics.is_file() and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "is saved. Resume with:\n  python -m platform.train --resume run\n" in errors
    assert "Traceback" not in errors
    saved = len(metrics_of(folder / "run"))
    assert 1 <= saved < 15
    out = command("platform.train", "--resume", "run")
    assert "after 15 epochs" in out
    assert [row["epoch"] for row in metrics_of(folder / "run")] == [str(n) for n in range(1, 16)]
