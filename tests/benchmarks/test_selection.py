"""The replay study on synthetic curves with known means, and the recording of curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import selection
from benchmarks.curves import Curves, draw_configurations, read_curves, record_curves
from benchmarks.selection import SelectionMethod, select, stopped_after, study
from platform.common.errors import UsageError, UserError
from platform.training.records import EpochRecord
from tests.benchmarks.examples import epoch_record
from tests.space.examples import EVERY_KIND, spec

SINGLE = SelectionMethod(name="single", stopping=False, candidates=1, seeds=0)
PROTOCOL = SelectionMethod(name="protocol", stopping=False, candidates=3, seeds=3)
SETTINGS = {"space": "test"}


def curves(noise: float, *, configs: int = 8, seeds: int = 10, epochs: int = 4) -> Curves:
    """Return curves in which configuration k is half a point better than k - 1; noise shifts each curve."""
    draws = np.random.default_rng(1)
    accuracy = np.empty((configs, seeds, epochs))
    for config in range(configs):
        final = 0.8 + 0.005 * config + noise * draws.standard_normal(seeds)
        accuracy[config] = final[:, None] - 0.1 * np.arange(epochs)[::-1]
    return Curves(accuracy, tuple({} for _ in range(configs)), SETTINGS)


def arguments(**changes: Any) -> Any:
    given = selection._parser().parse([])
    return type(given)(**{**vars(given), "replays": 200, **changes})


def test_without_noise_every_method_picks_the_best() -> None:
    quiet = curves(0.0)
    for method, epochs in ((SINGLE, 8 * 4), (PROTOCOL, 8 * 4 + 3 * 3 * 4)):
        row = study(quiet, method, arguments())
        assert (row["picked_the_best"], row["regret_points_mean"], row["epochs_mean"]) == (1, 0, epochs)
        assert row["optimism_points_mean"] == pytest.approx(0)


def test_with_noise_the_protocol_picks_the_best_more_often_with_less_optimism() -> None:
    noisy = curves(0.006)
    single, protocol = (study(noisy, method, arguments()) for method in (SINGLE, PROTOCOL))
    assert single["picked_the_best"] < protocol["picked_the_best"] < 1
    assert protocol["regret_points_mean"] < single["regret_points_mean"]
    assert single["optimism_points_mean"] > 0.15, "the best of eight noisy values"
    assert abs(protocol["optimism_points_mean"]) < single["optimism_points_mean"]
    assert study(noisy, PROTOCOL, arguments()) == protocol


def test_confirmation_uses_other_seeds_than_the_search() -> None:
    outlier = curves(0.0, configs=2)
    outlier.accuracy[0, 0] += 0.2  # seed 0 of the worse configuration
    seed_order = np.array([np.arange(10), np.arange(10)])
    present = np.array([0, 1])
    rungs = {"grace_epochs": 1, "reduction_factor": 3.0}
    assert select(outlier, SINGLE, present, seed_order, **rungs).config == 0
    chosen = select(outlier, PROTOCOL, present, seed_order, **rungs)
    assert (chosen.config, chosen.separated) == (1, True)
    assert chosen.reported_accuracy == pytest.approx(0.805)


def test_early_stopping_uses_the_sweeps_scheduler() -> None:
    rising = [np.linspace(0, best, 9) for best in (0.9, 0.5, 0.95, 0.1)]
    assert stopped_after(rising, grace_epochs=1, reduction_factor=3.0) == [9, 3, 9, 3]


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
    assert found.params == tuple(points)
    assert found.accuracy.shape == (2, 2, 2)
    assert found.accuracy[1, 0] == pytest.approx([0.101, 0.102])
    with pytest.raises(UserError, match=r"other settings \(space differ\)"):
        record_curves(path, points, seeds=2, settings={"space": "other"}, train=train)


def test_first_configurations_do_not_depend_on_the_count() -> None:
    space = spec(EVERY_KIND)
    assert draw_configurations(space, 3) == draw_configurations(space, 6)[:3]


def test_the_table_and_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, noisy = tmp_path / "curves.parquet", curves(0.006, epochs=2)

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        return [epoch_record(epoch, noisy.accuracy[number, seed, epoch - 1]) for epoch in (1, 2)]

    record_curves(path, [{"k": k} for k in range(8)], seeds=10, settings=SETTINGS, train=train)
    words = ["--curves", str(path), "--replays", "20", "--grace-epochs", "1"]
    assert selection.main([*words, "--json", str(tmp_path / "record.json")]) == 0
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["benchmark"] == "selection"
    methods = [row["way"] for row in written["results"]]
    out = capsys.readouterr().out
    assert all(f"\n{method}  " in out for method in methods)
    assert methods[-1] == "protocol"
    with pytest.raises(UsageError, match="need 11 recorded seeds"):
        selection.main([*words, "--seeds", "10"])
    with pytest.raises(UserError, match="--record"):
        selection.main(["--curves", str(tmp_path / "none.parquet")])
