"""Modules loaded at import: commands must report typos before they import heavy libraries."""

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
def test_import_loads_no_heavy_library(module: str) -> None:
    loaded = child(f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))")
    assert not set(HEAVY) & set(json.loads(loaded))


def test_trainer_imports_without_the_sweeps_libraries() -> None:
    modules = [
        f"platform.{package}.{module.name}"
        for package in ("data", "models", "training")
        for module in pkgutil.iter_modules([str(ROOT / "platform" / package)])
    ]
    assert "platform.training.loop" in modules
    # None in sys.modules makes an import fail as if the package were not installed.
    script = "import sys; sys.modules.update(dict.fromkeys(['ray', 'mlflow', 'optuna', 'rich', 'tyro'])); "
    child(script + "import " + ", ".join(modules))
