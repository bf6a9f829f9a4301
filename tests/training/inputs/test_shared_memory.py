"""Loader processes where /dev/shm is small; containers have 64 MB by default."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MOUNT = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
LOAD = """
import sys
import numpy as np
from PIL import Image
from platform.data.image_folders import ImageFolderSplit
from platform.data.normalization import Normalization
from platform.training.distributed import single
from platform.training.inputs.image_files import FileEvaluationSet

files = []
for number in range(12):
    files.append(f"{sys.argv[1]}/{number}.png")
    Image.new("RGB", (64, 64), (number, 0, 0)).save(files[-1])
split = ImageFolderSplit(np.array(files), np.arange(12))
normalization = Normalization(np.zeros(3, np.float32), np.ones(3, np.float32))
images = FileEvaluationSet(split, normalization, size=56, world=single("cpu"))
for batch, labels in images.batches(slice(0, 12), 4):
    print((batch[:, 0, 0, 0] * 255).round().int().tolist(), labels.tolist())
"""


def test_batches_larger_than_the_shared_memory(tmp_path: Path) -> None:
    alone = ["unshare", "--mount", "sh", "-c", MOUNT, "sh"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root, to mount a small /dev/shm")
    done = subprocess.run(
        [*alone, sys.executable, "-c", LOAD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [list(range(start, start + 4)) for start in (0, 4, 8)]
    assert done.stdout.splitlines() == [f"{row} {row}" for row in rows]
