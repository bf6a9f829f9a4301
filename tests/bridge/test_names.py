"""The package provides the standard library's `platform`: equal names and results."""

import importlib
import importlib.resources
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
import warnings
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import platform

STDLIB_FILE = Path(os.__file__).with_name("platform.py")


def standard_module() -> ModuleType:
    """Execute the standard library's module under another name and return it."""
    spec = spec_from_loader("standard_platform", SourceFileLoader("standard_platform", str(STDLIB_FILE)))
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules["standard_platform"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["standard_platform"]
    return module


STANDARD = standard_module()
PUBLIC = sorted(name for name in vars(STANDARD) if not name.startswith("_"))


def result_of(function: Any) -> Any:
    """Return the result of a call without arguments, or the type and message of its exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of the functions are deprecated in newer Pythons
            result = function()
    except Exception as error:  # noqa: BLE001 - both functions must raise the same error
        return type(error), str(error)
    return tuple(result) if isinstance(result, tuple) else result


def needs_no_arguments(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(p.default is not p.empty or p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD} for p in parameters)


def test_no_submodule_is_named_like_a_standard_attribute() -> None:
    ours = {module.name for module in pkgutil.iter_modules(platform.__path__)}
    assert {"common", "data", "models", "training", "tuning"} <= ours
    assert not ours & set(vars(STANDARD)), "rename it: it breaks libraries that use the standard attribute"


def test_every_public_attribute_gives_the_same_result() -> None:
    assert set(PUBLIC) >= {"platform", "uname", "python_version", "system", "node", "machine", "architecture"}
    compared = 0
    for name in PUBLIC:
        ours, theirs = getattr(platform, name), getattr(STANDARD, name)
        if isinstance(theirs, ModuleType):
            assert ours is theirs, name
        elif inspect.isfunction(theirs):
            assert inspect.signature(ours) == inspect.signature(theirs), name
            if needs_no_arguments(theirs):
                assert result_of(ours) == result_of(theirs), name
                compared += 1
        else:
            assert type(ours) is type(theirs), name
    assert compared >= 15


def test_the_package_adds_only_its_submodules() -> None:
    submodules = {module.name for module in pkgutil.iter_modules(platform.__path__)}
    ours = {name for name in vars(platform) if not name.startswith("_")}
    assert ours - submodules - set(PUBLIC) <= {"SourceFileLoader", "TYPE_CHECKING"}


def test_the_platform_string_takes_the_same_arguments() -> None:
    for aliased in (False, True):
        for terse in (False, True):
            assert platform.platform(aliased, terse) == STANDARD.platform(aliased, terse)


def test_file_and_resources_are_the_packages() -> None:
    assert Path(platform.__file__).parent == Path(__file__).parents[2] / "platform"
    assert importlib.resources.files("platform").joinpath("startup.pth").is_file()


def test_a_reload_keeps_the_submodules() -> None:
    errors = importlib.import_module("platform.common.errors")
    importlib.reload(platform)
    assert platform.common.errors is errors
    assert platform.system() == STANDARD.system()


def test_a_pickled_uname_round_trips_through_an_interpreter_without_the_package() -> None:
    ours = platform.uname()
    assert tuple(pickle.loads(pickle.dumps(ours))) == tuple(ours)  # noqa: S301 - our own bytes
    script = (
        "import pickle, platform, sys; assert not hasattr(platform, '__path__'); "
        "got = pickle.load(sys.stdin.buffer); assert tuple(got) == tuple(platform.uname()), got; "
        "sys.stdout.buffer.write(pickle.dumps(platform.uname()))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], input=pickle.dumps(ours), capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    assert tuple(pickle.loads(run.stdout)) == tuple(ours)  # noqa: S301 - bytes of the child process
