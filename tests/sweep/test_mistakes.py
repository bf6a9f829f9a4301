"""User errors: one message each, before a sweep is started or written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.examples import make_parquet
from tests.sweep.examples import ROOT, Place

_WITHOUT_HEAVY_LIBRARIES = """
import runpy, sys
try:
    runpy.run_module("platform.sweep", run_name="__main__", alter_sys=True)
finally:
    print(sorted({"torch", "ray", "mlflow", "pyarrow", "optuna", "torchvision"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet18_cifr"], "error: no search space named 'resnet18_cifr' (did you mean 'resnet18_cifar'?)"),
        ([], "error: give a search space: python -m platform.sweep SPACE; available: "),
        (["missing.yaml"], "error: no such search space file: missing.yaml"),
        (["tiny.yaml", "--set", "trials"], "error: "),
        (
            ["tiny.yaml", "--runs", "s3://bucket/runs"],
            "error: --runs must be a folder on this machine, got s3://bucket/runs; to keep a copy of a ",
        ),
    ],
    ids=["misspelled name", "no space", "no file", "no value", "a URI as folder"],
)
def test_a_usage_error_imports_no_heavy_library(place: Place, arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_HEAVY_LIBRARIES, *arguments],
        cwd=place.path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(place.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == "[]\n"


def test_all_errors_of_a_file_are_reported_together(place: Place) -> None:
    settings = ["trials=0", "base.optimizer.lr=-1", "sampler.name=tpa"]
    done = place.sweep("tiny.yaml", "--set", *settings)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("error: tiny.yaml: ")
    for line, path in zip(sorted(line.removeprefix("error: ") for line in lines), _PATHS, strict=True):
        assert line.startswith(f"tiny.yaml: {path}: ")
    assert place.sweeps == []


_PATHS = ("base.optimizer.lr", "sampler", "trials")


def test_a_missing_data_folder(place: Place) -> None:
    done = place.sweep("tiny.yaml", "--set", "base.data.name=cifar10", "--data-dir", "nowhere")
    _refused(done, place, "nowhere")


def test_a_truncated_parquet_file(place: Place) -> None:
    data = make_parquet(place.path / "data")
    shard = next(data.glob("train*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-200])
    done = place.sweep("tiny.yaml", "--set", "base.data.name=cifar10", "--data-dir", str(data))
    _refused(done, place, shard.name)


def test_more_resources_than_the_machine_has(place: Place) -> None:
    done = place.sweep("tiny.yaml", "--set", "resources_per_worker.CPU=4096")
    assert done.returncode == 2
    assert "a trial can never be placed: it needs one worker of 4096 CPU" in done.stderr
    assert place.sweeps == []


def _refused(done: subprocess.CompletedProcess[str], place: Place, named: str) -> None:
    assert done.returncode == 1
    *_, last = done.stderr.split("error: ")
    assert named in last
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert place.sweeps == [], "no sweep was started"
    assert not (place.path / "mlflow.db").exists()


def test_a_folder_that_is_not_a_sweep(place: Place) -> None:
    (place.path / "runs" / "else").mkdir(parents=True)
    done = place.sweep("--resume", str(Path("runs") / "else"))
    assert done.returncode == 2
    assert "else is not the folder of a sweep; give the folder or the id of a sweep" in done.stderr
