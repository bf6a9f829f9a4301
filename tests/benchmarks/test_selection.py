"""The replay study: its arithmetic on curves whose truth is known, and the recording."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import selection
from benchmarks.curves import Curves, draw_configurations, read_curves, record_curves
from benchmarks.selection import Way, choose, stopped_after, study
from platform.errors import UsageError, UserError
from platform.training.records import EpochRecord
from tests.space.examples import EVERY_KIND, spec

SINGLE = Way(name="single", stopping=False, candidates=1, seeds=0)
PROTOCOL = Way(name="protocol", stopping=False, candidates=3, seeds=3)
SETTINGS = {"space": "test"}


def curves(noise: float, *, configs: int = 8, seeds: int = 10, epochs: int = 4) -> Curves:
    """Configuration k is better by half a point than k - 1; noise is of the last epoch."""
    draws = np.random.default_rng(1)
    accuracy = np.empty((configs, seeds, epochs))
    for config in range(configs):
        final = 0.8 + 0.005 * config + noise * draws.standard_normal(seeds)
        accuracy[config] = final[:, None] - 0.1 * np.arange(epochs)[::-1]
    return Curves(accuracy, tuple({} for _ in range(configs)), SETTINGS)


def asked(**changes: Any) -> Any:
    given = selection._parser().parse([])
    return type(given)(**{**vars(given), "replays": 200, **changes})


def test_without_noise_every_way_picks_the_best_and_costs_what_it_trains() -> None:
    quiet = curves(0.0)
    for way, epochs in ((SINGLE, 8 * 4), (PROTOCOL, 8 * 4 + 3 * 3 * 4)):
        row = study(quiet, way, asked())
        assert (row["picked_the_best"], row["regret_points_mean"], row["epochs_mean"]) == (1, 0, epochs)
        assert row["optimism_points_mean"] == pytest.approx(0)


def test_with_noise_the_protocol_picks_the_best_more_often_and_boasts_less() -> None:
    noisy = curves(0.006)
    single, protocol = (study(noisy, way, asked()) for way in (SINGLE, PROTOCOL))
    assert single["picked_the_best"] < protocol["picked_the_best"] < 1
    assert protocol["regret_points_mean"] < single["regret_points_mean"]
    assert single["optimism_points_mean"] > 0.15, "the best of eight noisy figures"
    assert abs(protocol["optimism_points_mean"]) < single["optimism_points_mean"]
    assert study(noisy, PROTOCOL, asked()) == protocol


def test_confirmation_uses_other_seeds_than_the_search() -> None:
    lucky = curves(0.0, configs=2)
    lucky.accuracy[0, 0] += 0.2  # seed 0 of the worse configuration
    luck = np.array([np.arange(10), np.arange(10)])
    present = np.array([0, 1])
    rungs = {"grace_epochs": 1, "reduction_factor": 3.0}
    assert choose(lucky, SINGLE, present, luck, **rungs).config == 0
    chosen = choose(lucky, PROTOCOL, present, luck, **rungs)
    assert (chosen.config, chosen.separated) == (1, True)
    assert chosen.told == pytest.approx(0.805)


def test_stopping_is_the_sweeps_own() -> None:
    rising = [np.linspace(0, best, 9) for best in (0.9, 0.5, 0.95, 0.1)]
    assert stopped_after(rising, grace_epochs=1, reduction_factor=3.0) == [9, 3, 9, 3]


def a_record(epoch: int, accuracy: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        epochs=2,
        step=epoch,
        lr=0.1,
        train_loss=1.0,
        train_accuracy=0.5,
        validation_loss=1.0,
        validation_accuracy=accuracy,
        grad_norm=1.0,
        epoch_s=1.0,
        evaluation_s=0.1,
        images_per_s=64.0,
    )


def test_a_recording_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    path, trained = tmp_path / "curves.parquet", []

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((number, seed))
        return [a_record(epoch, 0.1 * number + 0.01 * seed + 0.001 * epoch) for epoch in (1, 2)]

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


def test_configurations_do_not_depend_on_their_number() -> None:
    space = spec(EVERY_KIND)
    assert draw_configurations(space, 3) == draw_configurations(space, 6)[:3]


def test_the_table_and_the_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, noisy = tmp_path / "curves.parquet", curves(0.006, epochs=2)

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        return [a_record(epoch, noisy.accuracy[number, seed, epoch - 1]) for epoch in (1, 2)]

    record_curves(path, [{"k": k} for k in range(8)], seeds=10, settings=SETTINGS, train=train)
    arguments = ["--curves", str(path), "--replays", "20", "--grace-epochs", "1"]
    assert selection.main([*arguments, "--json", str(tmp_path / "record.json")]) == 0
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["benchmark"] == "selection"
    ways = [row["way"] for row in written["results"]]
    out = capsys.readouterr().out
    assert all(f"\n{way}  " in out for way in ways)
    assert ways[-1] == "protocol"
    with pytest.raises(UsageError, match="need 11 recorded seeds"):
        selection.main([*arguments, "--seeds", "10"])
    with pytest.raises(UserError, match="--record"):
        selection.main(["--curves", str(tmp_path / "none.parquet")])
