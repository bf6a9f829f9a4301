"""The command `resnet-sweep` and the help of all commands."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from platform import cli
from platform.common.errors import UsageError

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "torchvision", "ray", "mlflow", "pyarrow", "optuna", "matplotlib", "scipy", "pandas"]


@pytest.fixture
def help_text(capsys, monkeypatch):
    """Return a function that runs a command with `--help` in this process and returns its output."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(module, **options):
        with pytest.raises(SystemExit) as stopped:
            importlib.import_module(module).main(["--help"], **options)
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return run


COMMANDS = [module for module, _ in cli.COMMANDS.values()]


@pytest.mark.parametrize("module", COMMANDS)
def test_help_shows_metavars_and_defaults_in_words(help_text, module):
    text = help_text(module)
    assert "None" not in text
    assert "False" not in text
    placeholders = set(re.findall(r"\b(?:STR|INT|FLOAT)\b", text))
    assert placeholders == set()
    assert text.startswith(("usage: python -m ", "usage: deploy/benchmark_ncnn "))


@pytest.mark.parametrize("module", COMMANDS)
def test_every_option_has_a_description(help_text, module):
    lines = help_text(module).splitlines()
    options = [index for index, line in enumerate(lines) if re.match(r"  --?\w", line)]
    assert options
    for index in options:
        described = re.search(r"\S {2,}\S", lines[index].rstrip()) is not None
        assert described or lines[index + 1].startswith("      "), lines[index]


def test_optional_values_are_in_brackets(help_text):
    assert "usage: python -m platform.sweep [-h] [OPTIONS] [SPACE]" in help_text("platform.sweep")
    assert "--resume [SWEEP]" in help_text("platform.sweep")
    assert "(default: the newest sweep)" in help_text("platform.report")


def test_the_options_of_a_sweep_are_grouped(help_text):
    titles = re.findall(r"^ (\w+(?: \w+)*) +$", help_text("platform.sweep"), re.MULTILINE)
    assert titles == [
        "positional arguments",
        "options",
        "resume options",
        "action options",
        "data options",
        "output options",
    ]


def test_the_usage_names_the_command(help_text):
    assert help_text("platform.train", prog="resnet-sweep train").startswith("usage: resnet-sweep train ")


def test_help_lists_all_commands(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert cli.main(words) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        for name, (_, description) in cli.COMMANDS.items():
            assert [name, *description.split()] in lines


def test_an_unknown_command_is_a_usage_error():
    message = r"no command 'trian' \(did you mean 'train'\?\); the commands are: sweep, train,"
    with pytest.raises(UsageError, match=message) as error:
        cli.main(["trian"])
    assert error.value.exit_code == 2


def test_a_command_runs_with_its_arguments(capsys, tmp_path):
    assert cli.main(["sweep", "--list", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no sweeps in {tmp_path}\n"


def test_the_script_is_the_entry_point():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"resnet-sweep": "platform.cli:run"}
    assert callable(cli.run)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_imports_no_heavy_library(name):
    script = (
        "import json, sys\n"
        "from platform import cli\n"
        "try:\n"
        f"    cli.main([{name!r}, '--help'])\n"
        "finally:\n"
        "    print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: resnet-sweep {name} ")
    assert not set(HEAVY) & set(json.loads(done.stdout.splitlines()[-1]))
