from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from platform.data.catalog import prepare_dataset
from platform.data.config import DataConfig
from platform.data.dataset import DatasetInfo
from platform.tuning.execution.cluster_session import session


@pytest.fixture(scope="package")
def ray_session() -> Iterator[None]:
    with session(num_cpus=2):
        yield


@pytest.fixture(scope="package")
def info(tmp_path_factory: pytest.TempPathFactory) -> DatasetInfo:
    return prepare_dataset(DataConfig(name="generated"), cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-20260101-000000"
    path.mkdir()
    return path
