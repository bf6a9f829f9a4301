"""A run that takes over another one's checkpoint goes on as the other would have, with its own settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from platform.data.tables import TrainingData
from platform.errors import UserError
from platform.training.checkpoint import read_checkpoint
from platform.training.config import RunConfig
from platform.training.distributed import single
from platform.training.inheritance import inherit_checkpoint
from platform.training.loop import fit
from platform.training.records import EpochRecord, RunResult
from platform.training.run_folder import MODEL

ConfigOf = Callable[..., RunConfig]


class _AfterTwo(Exception):  # noqa: N818 - the end of a turn, not an error
    pass


def turn(config: RunConfig, data: TrainingData, folder: Path) -> None:
    """Train two epochs of a longer run."""

    def listen(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise _AfterTwo

    with pytest.raises(_AfterTwo):
        run(config, data, folder, on_epoch=listen)


def run(config: RunConfig, data: TrainingData, folder: Path, **more: Any) -> RunResult:
    return fit(config, data, world=single("cpu"), checkpoint_dir=folder, **more)


def sgd(lr: float) -> dict[str, Any]:
    return {
        "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9},
        "schedule": {"name": "constant"},
        "epochs": 4,
    }


def test_the_state_is_the_sources_and_the_past_its_own(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    turn(config_of(**sgd(0.05)), data, good)
    turn(config_of(**sgd(1e-9)), data, bad)
    own, theirs = read_checkpoint(bad), read_checkpoint(good)
    for _ in range(2):
        inherit_checkpoint(good, bad, config=config_of(**sgd(0.02)))
    got = read_checkpoint(bad)
    assert got["state"]["records"] == own["state"]["records"] != theirs["state"]["records"]
    for name, weights in theirs["state"]["network"].items():
        assert torch.equal(got["state"]["network"][name], weights)
    assert not torch.equal(got["state"]["network"]["0.weight"], own["state"]["network"]["0.weight"])
    assert got["state"]["optimiser"]["state"], "the momentum of the source"

    result = run(config_of(**sgd(0.02)), data, bad)
    assert [record.lr for record in result.epochs] == pytest.approx([1e-9, 1e-9, 0.02, 0.02])


def test_it_goes_on_as_the_source_with_the_same_settings(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    source, heir = tmp_path / "source", tmp_path / "heir"
    config = config_of(**sgd(0.05))
    turn(config, data, source)
    turn(config_of(**sgd(0.001)), data, heir)
    inherit_checkpoint(source, heir, config=config)
    ended = [run(config, data, folder) for folder in (source, heir)]
    assert ended[0].epochs[2:] != ()
    assert [record.train_loss for record in ended[0].epochs[2:]] == [
        record.train_loss for record in ended[1].epochs[2:]
    ]
    assert (source / MODEL).is_file()


def test_runs_that_have_not_come_as_far_are_refused(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    config = config_of(**sgd(0.05))
    turn(config, data, tmp_path / "two")
    run(config, data, tmp_path / "four")
    with pytest.raises(UserError, match="holds 4 epochs"):
        inherit_checkpoint(tmp_path / "four", tmp_path / "two", config=config)
    with pytest.raises(UserError, match="no checkpoint at"):
        inherit_checkpoint(tmp_path / "none", tmp_path / "two", config=config)
