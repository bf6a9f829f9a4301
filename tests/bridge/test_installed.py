"""The installed package, from a wheel or editable, is importable from every directory.

Each test environment is new. The wheel is unpacked into it, as an installer does with a pure wheel; a path
file adds this interpreter's dependencies without their start-up hooks.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import platform

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["standard", "editable"])
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment with the project installed as a wheel or editable."""
    folder = tmp_path_factory.mktemp(request.param)
    build = [sys.executable, "-m", "hatchling", "build", "-t", f"wheel:{request.param}", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        assert not [name for name in wheel.namelist() if "engine/build" in name or "__pycache__" in name]
        wheel.extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin" / "python"


def run(interpreter: Path, *arguments: str, **environment: str) -> str:
    """Run the interpreter in `/` and return its output."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(interpreter), *arguments],
        cwd="/",
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


IMPORT_BOTH = (
    "import uuid, platform, platform.common.errors; from platform.training.config import RunConfig; "
    "print(platform.system(), platform.common.errors.did_you_mean('a', []) == '')"
)


@pytest.mark.parametrize(
    "flags", [[], ["-I"], ["-P"], ["-W", "error"]], ids=["plain", "-I", "-P", "-W error"]
)
def test_the_package_is_imported_from_another_directory(interpreter: Path, flags: list[str]) -> None:
    assert run(interpreter, *flags, "-c", IMPORT_BOTH) == f"{platform.system()} True"


def test_a_script_and_its_spawned_processes_import_the_package(interpreter: Path, tmp_path: Path) -> None:
    script = tmp_path / "console_script.py"
    script.write_text(
        "import multiprocessing\n"
        "from platform.common.errors import did_you_mean\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(did_you_mean, ('color', ['color'])))\n"
    )
    assert run(interpreter, str(script)) == "(did you mean 'color'?)"


def test_the_standard_module_was_imported_first(interpreter: Path) -> None:
    # Ray workers import the standard module before they run this project's code.
    assert (
        run(interpreter, "-c", f"import platform; platform.node(); {IMPORT_BOTH}")
        == f"{platform.system()} True"
    )


def test_the_hook_does_not_load_the_package(interpreter: Path) -> None:
    assert run(interpreter, "-c", "import sys; print('platform' in sys.modules)") == "False"


def test_a_folder_named_platform_does_not_replace_the_package(interpreter: Path, tmp_path: Path) -> None:
    (tmp_path / "platform").mkdir()
    assert run(interpreter, "-c", IMPORT_BOTH, PYTHONPATH=str(tmp_path)) == f"{platform.system()} True"


def test_the_wheel_contains_the_data_files(interpreter: Path) -> None:
    script = (
        "import platform, pathlib; root = pathlib.Path(platform.__file__).parents[1]; "
        "print((root / 'search_spaces' / 'resnet18_cifar.yaml').is_file(), "
        "(root / 'cpp_engine' / 'CMakeLists.txt').is_file(), (root / 'deploy').is_dir())"
    )
    assert run(interpreter, "-c", script) == "True True True"


def test_without_the_package_the_hook_finds_the_standard_module(interpreter: Path) -> None:
    script = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p and p != sys.argv[1]]; "
        "import platform; print(hasattr(platform, '__path__'), platform.system())"
    )
    assert run(interpreter, "-I", "-c", script, str(ROOT)) == f"False {platform.system()}"
