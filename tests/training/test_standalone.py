"""The trainer runs on a bare GPU host: it needs only PyTorch, numpy, pyarrow, Pillow and pydantic."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from platform.training.config import RunConfig
from platform.training.run_folder import MODEL

ConfigOf = Callable[..., RunConfig]
ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"ray", "mlflow", "rich", "tyro", "optuna", "matplotlib"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
from pathlib import Path
import torch
torch.set_num_threads(1)
from platform.data.config import DataConfig
from platform.data.formats.generated import generated_source
from platform.data.dataset import DatasetInfo
from platform.data.training_data import TrainingData
from platform.data.normalization import compute_normalization
from platform.training.config import RunConfig
from platform.training.distributed import single
from platform.training.loop import fit
dataset = generated_source().read(lambda message: None)
train, validation = dataset.train.take(range(64)), dataset.train.take(range(64, 84))
info = DatasetInfo(name="generated", label="generated", sha256="0", class_names=dataset.class_names,
    train_images=84, test_images=0, image_shape=(3, 32, 32), path=Path("."))
normalization = compute_normalization(train.images, "channel")
data = TrainingData(train=train, validation=validation, normalization=normalization, info=info)
config = RunConfig.model_validate_json(sys.argv[1])
result = fit(config, data, world=single(), checkpoint_dir=Path(sys.argv[2]))
print(len(result.epochs))
"""


def test_training_needs_neither_ray_nor_mlflow_nor_console_libraries(
    config_of: ConfigOf, tmp_path: Path
) -> None:
    config = config_of(epochs=1).model_dump_json()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, config, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    assert (tmp_path / MODEL).is_file()
