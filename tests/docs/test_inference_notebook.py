"""The inference notebook: well-formed, without outputs, and its cells run in order."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import TrainedModel, save_trained_model

NOTEBOOK = Path(__file__).parents[2] / "docs" / "inference.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = ModelConfig(name="resnet20_cifar")
    model = TrainedModel(
        model=config,
        state_dict=build_network(config, num_classes=3).state_dict(),
        mean=torch.tensor([0.5, 0.4, 0.3]),
        std=torch.tensor([0.2, 0.25, 0.3]),
        class_names=("cat", "dog", "owl"),
        input_shape=(3, 32, 32),
        data_label="generated",
        metrics={"validation_accuracy": 0.5},
    )
    save_trained_model(tmp_path / "model.pt", model)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_notebook_is_valid_and_has_no_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    assert all(cell["outputs"] == [] for cell in CELLS if cell["cell_type"] == "code")


def test_cells_run_and_ncnn_agrees_with_pytorch(folder: Path) -> None:
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in CELLS:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), names)  # noqa: S102 - the project's own text
    assert names["difference"] < 1e-4
    assert names["same"] is True
    assert "resnet20_cifar, trained on generated" in printed.getvalue()
    assert (folder / "export" / "model.bin").is_file()
