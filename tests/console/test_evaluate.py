"""The progress of `python -m platform.evaluate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from platform import evaluate
from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.models.trained import save_trained_model
from tests.deploy.examples import trained_like


def test_the_images_done_and_the_time_left_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = prepare_dataset(DataConfig(name="generated"), data_dir=None, progress=lambda _: None)
    model = replace(
        trained_like("resnet20_cifar"),
        class_names=info.class_names,
        data_label=info.label,
        provenance={},
    )
    save_trained_model(tmp_path / "model.pt", model)
    monkeypatch.setattr("platform.common.time_left._EVERY_S", 0.0)
    assert evaluate.main([str(tmp_path / "model.pt"), "--no-flip"]) == 0
    out, err = capsys.readouterr()
    assert "… evaluating: 500 of 2,000 images, " in err
    assert "evaluating" not in out
    assert "accuracy" in out
