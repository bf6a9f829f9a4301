"""The C++ library's own tests under address and undefined-behavior sanitizers."""

import subprocess
from pathlib import Path

import pytest


@pytest.mark.parametrize("program", [["unit_tests"], ["damaged_models", "200"]])
def test_passes_under_the_sanitizers(sanitized: Path, program: list[str]) -> None:
    command = [str(sanitized / "tests" / program[0]), *program[1:]]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
