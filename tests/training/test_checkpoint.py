"""Checkpoints: damaged and foreign ones are rejected, and a failed write keeps the previous one."""

import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from platform.common.errors import UserError
from platform.data.training_data import TrainingData
from platform.training.records import EpochRecord
from platform.training.run_folder import LAST
from tests.training.examples import ConfigOf, run


def test_a_checkpoint_of_another_configuration_or_other_data_is_rejected(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    sgd = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    run(config_of(optimizer=sgd), data, tmp_path)
    with pytest.raises(UserError, match=r"another: optimizer\.lr was 0\.05, is 0\.1\. Change it back"):
        run(
            config_of(optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}),
            data,
            tmp_path,
        )
    other = replace(data, info=replace(data.info, sha256="1" * 64))
    with pytest.raises(UserError, match="began with other images"):
        run(config_of(), other, tmp_path)


def test_a_damaged_checkpoint_is_rejected(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    run(config_of(), data, tmp_path)
    path = tmp_path / LAST
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)["state"]["network"]["0.weight"]
    inside_a_tensor = whole.index(content.permute(0, 2, 3, 1).contiguous().numpy().tobytes()[:32]) + 5
    compression = whole.index(b"PK\x01\x02") + 10  # of the first file in the directory of the archive
    for name, damaged in {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a checkpoint\n",
        "one bit": whole[:inside_a_tensor]
        + bytes([whole[inside_a_tensor] ^ 1])
        + whole[inside_a_tensor + 1 :],
        "compressed": whole[:compression] + b"\x08" + whole[compression + 1 :],
    }.items():
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"last\.pt is damaged"):
            run(config_of(), data, tmp_path)
        assert path.read_bytes() == damaged, name


def test_a_foreign_pickle_is_never_executed(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    class Foreign:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"format": Foreign()}, tmp_path / LAST)
    with pytest.raises(UserError, match="foreign objects are never loaded"):
        run(config_of(), data, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_keeps_the_previous_checkpoint(
    config_of: ConfigOf, data: TrainingData, tmp_path: Path, small_network: None
) -> None:
    """A limit on the file size simulates the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept: list[bytes] = []

    def fill_disk(_record: EpochRecord) -> None:
        kept.append((tmp_path / LAST).read_bytes())
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(UserError, match=r"cannot write the checkpoint .*last\.pt: File too large; free"):
            run(config_of(), data, tmp_path, on_epoch=fill_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / LAST).read_bytes() == kept[0]
    assert [path.name for path in tmp_path.iterdir()] == [LAST]
