"""Fixtures that keep the data tests off this machine's datasets and off the network."""

import pytest

from platform.data import catalog
from platform.data.formats import download


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset CIFAR10_DIR and point the download URL at a closed port."""
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/nothing-listens-here")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept 60 + 20 images as the complete CIFAR-10."""
    monkeypatch.setattr(catalog, "CIFAR10_IMAGES", (60, 20))
