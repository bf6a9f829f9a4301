"""kill -9, at any instant: the checkpoint is whole, and the run that goes on ends with the same numbers."""

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
    """Return what must repeat: every epoch's record but its times."""
    epochs = json.loads((run / "record.json").read_text())["epochs"]
    return [{key: value for key, value in epoch.items() if key not in TIMES} for epoch in epochs]


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SPACE)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path / "tiny.yaml"), str(tmp_path), "1", str(KILLS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        # Equal bit by bit is a promise for CPUs.
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache)}
        | {"CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = json.loads((tmp_path / "log.json").read_text())
    # Half the kills wait for a checkpoint that is being written; a run may end before the last of the others.
    assert any(entry["unfinished"] for entry in log), log
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert numbers(run) == numbers(whole)
    first, second = (torch.load(folder / "model.pt", weights_only=True) for folder in (whole, run))
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    assert not list(run.glob(".*.tmp")), "what a killed run had begun to write is cleared away"
