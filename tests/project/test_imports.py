"""What a module may load when it is imported: a typo must answer before the heavy libraries arrive."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ["torch", "torchvision", "ray", "mlflow", "pyarrow", "optuna", "matplotlib", "scipy", "pandas"]
ENTRY_MODULES = sorted(path.stem for path in (ROOT / "platform").glob("[a-z]*.py"))
LIGHT = [
    "platform.data.config",
    "platform.models.config",
    "platform.training.config",
    "platform.tracking.events",
]


def child(script: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", [*LIGHT, *(f"platform.{name}" for name in ENTRY_MODULES)])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    loaded = child(f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(json.loads(loaded))


def test_the_trainer_needs_none_of_the_sweeps_libraries() -> None:
    rooms = [
        f"platform.{room}.{module.name}"
        for room in ("data", "models", "training")
        for module in pkgutil.iter_modules([str(ROOT / "platform" / room)])
    ]
    assert "platform.training.loop" in rooms
    # A name that stands for None in sys.modules cannot be imported, as if it were not installed.
    script = "import sys; sys.modules.update(dict.fromkeys(['ray', 'mlflow', 'optuna', 'rich', 'tyro'])); "
    child(script + "import " + ", ".join(rooms))
