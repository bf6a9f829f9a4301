"""The commands in the documentation: each is accepted by its parser, with settings that exist."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from benchmarks.command import Parser
from platform.cli import COMMANDS
from platform.space.space_files import find_spaces, load_space

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(
    r" {4,}(?:PYTHONPATH=\w+ )?"
    r"(?:(?:python3?|torchrun .*?) -m (?P<module>(?:platform|deploy|benchmarks)[\w.]*)"
    r"|resnet-sweep (?P<name>\w+)|deploy/benchmark_ncnn)(?P<words>.*)"
)


class Parsed(BaseException):
    """Ends a command after its arguments have been read."""


def commands():
    """Return module and arguments of every command in a block of code, by their text."""
    found = {}
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            match = COMMAND.match(line)
            if match is not None:
                module = match["module"] or "deploy.benchmark"
                module = COMMANDS[match["name"]][0] if match["name"] else module
                words = shlex.split(match["words"], comments=True)
                found[shlex.join([module, *words])] = (module, words)
    return found


def make_targets():
    """Yield the targets of `make` in blocks of code, with the variables that are given."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        yield from re.findall(r"^ {4,}make (\w+)((?: +[A-Z]+=(?:\"[^\"]*\"|\S+))*)", text, re.MULTILINE)


@pytest.mark.parametrize(("module", "words"), commands().values(), ids=commands())
def test_a_command_of_the_documentation_is_valid(module, words, monkeypatch):
    if (module, words[:1]) == ("platform.cluster", ["sweep"]):
        module, words = "platform.sweep", words[1:]
    for owner, name in ((tyro, "cli"), (Parser, "parse"), (argparse.ArgumentParser, "parse_args")):
        read = getattr(owner, name)

        def stop(*arguments, _read=read, **options):
            raise Parsed(_read(*arguments, **options))

        monkeypatch.setattr(owner, name, stop)
    command = importlib.import_module(module)
    if hasattr(command, "__path__"):
        command = importlib.import_module(f"{module}.__main__")
    with pytest.raises(Parsed) as caught:
        command.main(words)
    [given] = caught.value.args
    if module == "platform.sweep" and given.space in find_spaces():
        load_space(given.space, overrides=[text for group in given.settings for text in group])
    elif module == "platform.train" and given.space is not None:
        command._request(given)


def test_the_documentation_has_commands_and_their_make_targets_exist():
    assert len(commands()) > 50
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target, variables in make_targets():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        for name in re.findall(r"([A-Z]+)=", variables):
            assert f"$({name})" in makefile, name
