"""No test of this room touches the machine's data or the network by accident."""

import pytest

from platform.data import catalog
from platform.data.formats import download


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads this machine's data or network by accident."""
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/nothing-listens-here")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 60 + 20 images pass for the whole of CIFAR-10."""
    monkeypatch.setattr(catalog, "CIFAR10_IMAGES", (60, 20))
