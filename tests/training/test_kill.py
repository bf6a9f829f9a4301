"""kill -9 leaves a valid checkpoint, and the resumed run has the results of an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("kill_program.py")
SPACE = """\
about: Five epochs of two steps.
base:
  model: {name: resnet20_cifar}
  data: {name: generated, train_limit: 64, validation_size: 32}
  epochs: 5
  batch_size: 32
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9, nesterov: true}
  schedule: {name: plateau, patience_epochs: 1, threshold: 0.9, factor: 0.5}
  augment: {cutout: {length: 8}, mixup: 0.2}
  ema_decay: 0.5
  report: best
"""
KILLS = 3
TIMES = {"epoch_s", "evaluation_s", "images_per_s", "overhead_s"}


def numbers(run: Path) -> list[dict[str, Any]]:
    """Return the reproducible part of every epoch record: all fields except times."""
    epochs = json.loads((run / "record.json").read_text())["epochs"]
    return [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in epochs]


def test_a_repeatedly_killed_run_equals_an_undisturbed_one(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path / "tiny.yaml"), str(tmp_path), "1", str(KILLS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # Bit-identical results are guaranteed on CPUs only.
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
        | {"CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "log.json").read_text())
    # Every second kill hits a checkpoint that is being written; the run may finish before the last kill.
    assert any(entry["unfinished"] for entry in log), log
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert numbers(run) == numbers(whole)
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (whole, run))
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    assert not list(run.glob(".*.tmp")), "temporary files of killed runs must be removed"
