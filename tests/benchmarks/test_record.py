"""The shared record and command line of the benchmarks."""

import json
from pathlib import Path

import pytest

from benchmarks import record
from benchmarks.command import Parser, at_least, one_of, several_of
from platform.common.errors import UsageError, UserError


def test_record_has_context_settings_and_results(tmp_path: Path) -> None:
    where = record.context()
    record.write(tmp_path / "new" / "a.json", record.document("training", where, {"batch": 1}, [{"x": 2}]))
    written = json.loads((tmp_path / "new" / "a.json").read_text())
    assert written["schema_version"] == record.SCHEMA_VERSION
    assert (written["benchmark"], written["settings"], written["results"]) == (
        "training",
        {"batch": 1},
        [{"x": 2}],
    )
    for key in ("started_at", "git_commit", "cpu", "cores", "gpus", "versions", "load_average", "command"):
        assert key in written["context"], key
    assert written["context"]["versions"]["torch"]
    assert record.describe(where).startswith(where["cpu"])


def test_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the record"):
        record.write(tmp_path / "file" / "a.json", {})
    with pytest.raises(ValueError, match="JSON compliant"):
        record.write(tmp_path / "a.json", {"x": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_record_is_written_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    record.write(Path("-"), {"schema_version": 1})
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1}


@pytest.fixture
def parser() -> Parser:
    parser = Parser("training", "a test")
    parser.add_argument("--models", type=several_of(("resnet18_cifar", "resnet32_cifar")))
    parser.add_argument("--device", type=one_of(("cpu", "cuda")))
    parser.add_argument("--repetitions", type=at_least(1))
    return parser


def test_arguments_are_read(parser: Parser) -> None:
    given = parser.parse(
        ["--models", "resnet32_cifar,resnet18_cifar", "--repetitions", "3", "--json", "a.json"]
    )
    assert (given.models, given.repetitions) == (["resnet32_cifar", "resnet18_cifar"], 3)
    assert given.json == Path("a.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet18_cifar"], r"unknown argument '--model' \(did you mean '--models'\?\)"),
        (["--models", "resnet18_cfar"], "did you mean 'resnet18_cifar'"),
        (["--device", "gpu"], "'gpu' is not one of cpu, cuda"),
        (["--repetitions", "0"], "must be a whole number, 1 or more, got '0'"),
        (["--repetitions", "two"], "must be a whole number"),
        (["--repetitions"], "expected one argument"),
        (["stray"], "unknown argument 'stray'"),
    ],
)
def test_usage_errors(parser: Parser, arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parser.parse(arguments)
