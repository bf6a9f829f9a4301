"""The training benchmarks run without the sweep's libraries and report typos before importing PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
# None in sys.modules makes an import fail as if the package were not installed.
sys.modules.update(dict.fromkeys(["ray", "mlflow", "optuna", "rich", "tyro", "matplotlib"]))
from benchmarks import time_to_accuracy, training
from platform.common.errors import UsageError
for main, arguments in ((training.main, ["--modles", "x"]), (time_to_accuracy.main, ["--recipe", "nothing"])):
    try:
        main(arguments)
    except UsageError as error:
        print(error)
print("torch" in sys.modules)
import benchmarks.reference_loop, benchmarks.roofline
import platform.data.catalog, platform.tracking.provenance, platform.training.loop
"""


def test_benchmarks_import_without_the_sweeps_libraries_and_report_typos_before_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modles, nothing, loaded = done.stdout.splitlines()
    assert "did you mean '--models'" in modles
    assert "no search space named 'nothing'" in nothing
    assert loaded == "False"
