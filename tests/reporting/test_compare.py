"""`python -m platform.report --compare`: two sweeps side by side, and why they are not comparable."""

import json
import shutil

import pytest

from platform import report
from platform.common.atomic import write_json
from platform.common.errors import UsageError
from platform.tracking.sweep_folder import SweepFolder
from tests.reporting.example_sweep import write_example
from tests.reporting.test_page import Page


@pytest.fixture
def pair(finished, tmp_path):
    copies = [SweepFolder(tmp_path / f"resnet18_cifar-2026030{day}-120000") for day in (1, 2)]
    for copy in copies:
        shutil.copytree(finished.path, copy.path)
    return copies


def compare(pair, capsys):
    first, second = pair
    assert report.main(["--runs", str(first.path.parent), "--compare", first.sweep_id, str(second.path)]) == 0
    out, err = capsys.readouterr()
    path = first.path.parent / f"compare-{first.sweep_id}-{second.sweep_id}.html"
    assert out == f"{path}\n"
    return Page(path.read_text(encoding="utf-8")).text, err


def test_equal_budgets_are_compared_over_seeds(pair, capsys):
    selection = json.loads(pair[1].selection.read_text())
    for entry in selection["candidates"]:
        entry["estimate"]["mean"] -= 0.02
    write_json(pair[1].selection, selection)
    text, err = compare(pair, capsys)
    assert err == ""
    assert "not comparable" not in text
    assert (
        f"The champion of {pair[1].sweep_id} is expected 2.00 points below that of {pair[0].sweep_id} on "
        "validation (95 % interval -"
    ) in text
    assert "it is the better one with 0 %" in text
    assert "Optimization histories" in text


def test_equal_champions_are_better_with_equal_probability(pair, capsys):
    text, _ = compare(pair, capsys)
    assert "it is the better one with 50 %" in text


def test_other_data_and_budgets_are_not_comparable(tmp_path, capsys):
    small = write_example(tmp_path / "small", trials=5, generated=True)
    champion = json.loads(small.champion.read_text())
    champion["config"]["epochs"] = 3
    champion["config"]["data"]["train_limit"] = 2000
    write_json(small.champion, champion)
    text, err = compare([write_example(tmp_path, trials=6), small], capsys)
    expected = (
        "dataset: cifar10 and generated",
        "training images of a run: - and 2000",
        "epochs of a run: 30 and 3",
        "trials of the search: 6 and 5",
    )
    for reason in expected:
        assert f"not comparable: {reason}\n" in err
        assert reason in text
    assert err.count("\n") == len(expected)


def test_an_unconfirmed_sweep_has_no_verdict(pair, capsys):
    pair[1].selection.unlink()
    text, _ = compare(pair, capsys)
    assert "At least one sweep has no confirmed champion" in text


def test_a_sweep_and_a_comparison_at_once_are_refused(tmp_path):
    with pytest.raises(UsageError, match="one sweep, or two with --compare"):
        report.main(["a", "--runs", str(tmp_path), "--compare", "a", "b"])
