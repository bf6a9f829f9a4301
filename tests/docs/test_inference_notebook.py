"""The inference notebook: well-formed, with outputs, and its cells run in order."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import torch

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
    final = tmp_path / "runs" / "latest" / "checkpoints" / "final"
    final.mkdir(parents=True)
    save_trained_model(final / "model.pt", model)
    shutil.copytree(NOTEBOOK.parent / "images", tmp_path / "docs" / "images")
    monkeypatch.chdir(tmp_path / "docs")
    return tmp_path


def test_notebook_is_valid_and_shows_its_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    printing = [cell for cell in CELLS if "print(" in "".join(cell["source"]) and cell["cell_type"] == "code"]
    assert len(printing) >= 6
    assert all(output["name"] == "stdout" for cell in printing for output in cell["outputs"])
    assert all(cell["outputs"] for cell in printing)


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
    assert (names["export"].path / "model.bin").is_file()
