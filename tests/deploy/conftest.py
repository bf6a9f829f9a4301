"""Fixtures of the export tests: a small network and its export, created once per session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deploy.export import export_model
from deploy.model_files.model_folder import ModelFolder
from platform.models.trained import TrainedModel, save_trained_model
from tests.deploy.examples import trained_like


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Restrict PyTorch to one thread: the batches are tiny."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> TrainedModel:
    return trained_like("resnet32_cifar")


@pytest.fixture(scope="session")
def model_path(model: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    save_trained_model(path, model)
    return path


@pytest.fixture(scope="session")
def export(model_path: Path) -> ModelFolder:
    return export_model(model_path, model_path.parent / "export", source={"sweep": "s-20260101-000000"})
