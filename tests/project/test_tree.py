"""Rules for the whole tree: no addresses, small documented modules, one lock file."""

import ast
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("platform", "deploy", "benchmarks")
# Written in pieces, because this file is checked too.
FORBIDDEN = {
    "a package index": ("pypi" + ".org", "python" + "hosted", "download." + "pytorch", "registry." + "npmjs"),
    "a path of one machine": ("/wo" + "rk/", "/ro" + "ot/", "/home" + "/"),
    "a secret": ("BEGIN OPENSSH " + "PRIVATE", "BEGIN RSA " + "PRIVATE", "AKI" + "A"),
}


def tree() -> list[Path]:
    """Return every file that belongs to the project: tracked, or new and not ignored."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def modules() -> list[Path]:
    return [path for path in tree() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGES]


def locked() -> dict[str, str]:
    """Return the version of every package in requirements.lock."""
    text = (ROOT / "requirements.lock").read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE))


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    return [Requirement(line) for lines in (project["project"]["dependencies"], *groups) for line in lines]


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_no_file_contains(kind: str) -> None:
    found = []
    for path in tree():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image
        found += [f"{path.relative_to(ROOT)}: {word}" for word in FORBIDDEN[kind] if word in text]
    assert not found


def test_no_large_file_is_in_the_tree() -> None:
    large = [path.name for path in tree() if path.stat().st_size > 1_000_000]
    assert not large


def test_every_module_has_a_docstring() -> None:
    undocumented = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not undocumented


def test_no_module_has_more_than_400_lines() -> None:
    lines = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in modules()}
    assert not {name: n for name, n in lines.items() if n > 400}


def test_init_of_a_package_has_only_a_docstring() -> None:
    for path in sorted((ROOT / "platform").rglob("__init__.py")):
        if path.parent != ROOT / "platform":  # it extends the standard library's `platform`
            (statement,) = ast.parse(path.read_text()).body
            assert isinstance(statement, ast.Expr), path


def test_makefile_documents_its_targets() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z][\w.-]*)\s*:(?!=)", text, re.MULTILINE)
    assert len(targets) <= 8
    (phony,) = re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(targets)
    assert all(f"#   make {target}" in text for target in targets)


def test_the_lock_file_satisfies_the_declared_requirements() -> None:
    versions = locked()
    for requirement in declared():
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not in requirements.lock: write it again (CONTRIBUTING.md)"
        assert requirement.specifier.contains(versions[name], prereleases=True), (requirement, versions[name])


def test_the_lock_file_holds_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(packages) >= len(declared())
    assert all(re.match(r"\S+==.*--hash=sha256:", package, re.DOTALL) for package in packages)
    assert "://" not in text


def test_no_folder_has_more_than_14_files() -> None:
    counts = Counter(path.parent for path in tree())
    assert not {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > 14}
