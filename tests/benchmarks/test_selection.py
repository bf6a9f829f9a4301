"""The comparison of ways to choose, on synthetic searches with known means, and the recording of curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import selection
from benchmarks.confirmations import Design, Searches, confirm
from benchmarks.curves import Curves, draw_configurations, read_curves, record_curves
from benchmarks.selection import ADAPTIVE, FIXED, SINGLE, Shape, row, saved_share, simulated, stopped_after
from platform.common.errors import UserError
from platform.space.settings import Confirm
from platform.training.records import EpochRecord
from tests.benchmarks.examples import epoch_record
from tests.space.examples import EVERY_KIND, spec

SETTINGS = {"space": "test"}
RULE = Confirm(min_seeds=2, max_runs=16, tolerance=0.2, confidence=0.95)


def curves(noise: float, *, configs: int = 14, seeds: int = 6, epochs: int = 4) -> Curves:
    """Return curves in which configuration k is half a point better than k - 1; noise shifts each curve."""
    draws = np.random.default_rng(1)
    accuracy = np.empty((configs, seeds, epochs))
    for config in range(configs):
        final = 0.8 + 0.005 * config + noise * draws.standard_normal(seeds)
        accuracy[config] = final[:, None] - 0.1 * np.arange(epochs)[::-1]
    return Curves(accuracy, SETTINGS)


def test_without_noise_every_design_picks_the_best_and_promises_the_truth() -> None:
    truth = np.random.default_rng(0).standard_normal((20, 6))
    quiet = Searches(truth, truth.copy(), np.zeros(1))
    for design, runs in ((SINGLE, 0), (FIXED[-1], 24)):
        found = confirm(quiet, design, np.random.default_rng(0))
        assert (found.regret.max(), found.right.all(), set(found.runs)) == (0, True, {runs})
        assert found.bias == pytest.approx(0, abs=0.2 if design is SINGLE else 0.05)


@pytest.mark.parametrize("slots", [1, 4])
def test_the_adaptive_design_keeps_its_limits_and_its_claims(slots: int) -> None:
    searches = simulated(400, None)
    found = confirm(searches, Design(name="", candidates=4, rule=RULE, slots=slots), np.random.default_rng(0))
    assert found.runs.min() >= 2
    assert found.runs.max() <= 16
    assert len(set(found.runs)) > 5, "it stops when the decision is clear"
    assert found.loss.mean() == pytest.approx(found.regret.mean(), rel=0.25)
    assert abs(found.bias.mean()) < 0.15
    single = confirm(searches, SINGLE, np.random.default_rng(0))
    assert found.regret.mean() < 0.6 * single.regret.mean()
    assert single.bias.mean() > 0.5, "the best of twelve noisy values"


def test_the_adaptive_design_needs_fewer_runs_than_fixed_ones_of_equal_regret() -> None:
    searches = simulated(600, None)
    results = [row("normal", design, searches) for design in (*FIXED, ADAPTIVE[1])]
    saved = saved_share(results, "normal", ADAPTIVE[1].name)
    assert saved is not None
    assert saved > 0.25


def test_saved_runs_are_interpolated_between_fixed_designs() -> None:
    values = (("fixed 1", 4, 0.4), ("fixed 2", 8, 0.2), ("fixed 3", 9, 0.3), ("own", 3, 0.3))
    results = [
        {"source": "s", "design": name, "runs": runs, "regret": regret} for name, runs, regret in values
    ]
    assert saved_share(results, "s", "own") == pytest.approx(0.5)
    assert saved_share([*results[:3], {**results[3], "regret": 0.1}], "s", "own") is None


def test_the_recorded_shape_leaves_the_noise_out_of_the_spread() -> None:
    shape = Shape.of(curves(0.01, seeds=40))
    assert shape.deviation == pytest.approx(0.01, rel=0.1)
    assert shape.spread == pytest.approx(np.std(0.005 * np.arange(14), ddof=1), rel=0.1)
    assert (shape.gaps.std(), shape.noise.std()) == pytest.approx((1, 1), abs=0.01)


def test_early_stopping_uses_the_sweeps_scheduler() -> None:
    rising = [np.linspace(0, best, 9) for best in (0.9, 0.5, 0.95, 0.1)]
    assert stopped_after(rising, grace_epochs=1, reduction_factor=3.0) == [9, 3, 9, 3]


def test_early_stopping_of_parallel_curves_never_loses_the_best_without_noise() -> None:
    quiet = curves(1e-6, epochs=9)
    found = selection.early_stopping(quiet, Shape.of(quiet), 2, 3.0, replays=20)
    assert (found["lost_the_best"], found["regret_of_stopping"]) == (0, 0)
    assert 0.3 < found["epochs_share"] < 0.9


def test_recording_resumes_after_a_stop(tmp_path: Path) -> None:
    path, trained = tmp_path / "curves.parquet", []

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((number, seed))
        return [epoch_record(epoch, 0.1 * number + 0.01 * seed + 0.001 * epoch) for epoch in (1, 2)]

    points = [{"lr": 0.1}, {"lr": 0.2}]
    with pytest.raises(KeyboardInterrupt):
        record_curves(path, points, seeds=2, settings=SETTINGS, train=train)
    assert trained == [(0, 0), (1, 0), (0, 1)]
    with pytest.raises(UserError, match="1 of 4 runs are not recorded"):
        read_curves(path)
    trained.clear()
    record_curves(path, points, seeds=2, settings=SETTINGS, train=train)
    assert trained == [(1, 1)]
    found = read_curves(path)
    assert found.accuracy.shape == (2, 2, 2)
    assert found.accuracy[1, 0] == pytest.approx([0.101, 0.102])
    with pytest.raises(UserError, match=r"other settings \(space differ\)"):
        record_curves(path, points, seeds=2, settings={"space": "other"}, train=train)


def test_first_configurations_do_not_depend_on_the_count() -> None:
    space = spec(EVERY_KIND)
    assert draw_configurations(space, 3) == draw_configurations(space, 6)[:3]


def test_the_table_the_chart_and_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, noisy = tmp_path / "curves.parquet", curves(0.006, epochs=2)

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        return [epoch_record(epoch, noisy.accuracy[number, seed, epoch - 1]) for epoch in (1, 2)]

    record_curves(path, [{"k": k} for k in range(14)], seeds=6, settings=SETTINGS, train=train)
    words = ["--curves", str(path), "--searches", "20", "--replays", "5"]
    files = ["--chart", str(tmp_path / "chart.svg"), "--json", str(tmp_path / "record.json")]
    assert selection.main([*words, *files]) == 0
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["benchmark"] == "selection"
    out = capsys.readouterr().out
    designs = {one["design"] for one in written["results"] if "design" in one}
    assert {"best single run", "fixed 3 x 3", "adaptive, stops at 0.2"} <= designs
    assert all(f"\n{design}  " in out for design in designs)
    assert "<svg" in (tmp_path / "chart.svg").read_text()
    with pytest.raises(UserError, match="--record"):
        selection.main(["--curves", str(tmp_path / "none.parquet")])
