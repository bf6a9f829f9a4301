from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.sweep.examples import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a place with one finished sweep and its mirror; read-only."""
    place = Place(tmp_path_factory.mktemp("swept"))
    done = place.sweep("tiny.yaml", "--mirror", "mirror")
    assert done.returncode == 0, done.stderr
    (place.path / "stdout.txt").write_text(done.stdout)
    (place.path / "stderr.txt").write_text(done.stderr)
    assert place.processes() == []
    return place


@pytest.fixture
def copy(swept: Place, tmp_path: Path) -> Place:
    """Return a copy of the finished sweep's place that a test may change."""
    shutil.copytree(swept.path, tmp_path, dirs_exist_ok=True, symlinks=True)
    place = Place(tmp_path)
    for folder in place.sweeps:  # its mirror is an absolute path
        path = folder.path / "mirror.json"
        path.write_text(path.read_text().replace(str(swept.path), str(tmp_path)))
    return place
