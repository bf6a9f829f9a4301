"""The posterior of the recipes' means, against simulations of its own model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform.tuning.selection.posterior import Runs, posterior, runs_of

ACCURACIES = st.lists(
    st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=1, max_size=5),
    min_size=2,
    max_size=6,
)


@settings(max_examples=30, deadline=None)
@given(ACCURACIES, st.randoms())
def test_the_posterior_does_not_depend_on_the_order_of_arrival(accuracies, random) -> None:
    found = posterior(runs_of(accuracies), draws=64)
    shuffled = [random.sample(values, len(values)) for values in accuracies]
    again = posterior(runs_of(shuffled), draws=64)
    assert np.array_equal(found.mean, again.mean)
    assert np.array_equal(found.draws, again.draws)


def test_a_batch_gives_the_same_as_its_parts() -> None:
    parts = [runs_of([[0.9, 0.91], [0.88], [0.93]]), runs_of([[0.5], [0.51], [0.7, 0.6, 0.65]])]
    batch = Runs(*(np.stack(values) for values in zip(*parts, strict=True)))
    together = posterior(batch, draws=128)
    for number, part in enumerate(parts):
        assert together.draws[number] == pytest.approx(posterior(part, draws=128).draws)


def test_the_mean_is_shrunken_and_more_runs_shrink_it_less() -> None:
    few = posterior(runs_of([[0.95], [0.90], [0.90], [0.91], [0.89], [0.90]]))
    many = posterior(runs_of([[0.95] * 6, [0.90], [0.90], [0.91], [0.89], [0.90]]))
    assert 0.90 < few.mean[0] < many.mean[0] <= 0.95
    assert few.draws.mean(axis=0) == pytest.approx(few.mean, abs=0.002)


def test_without_noise_equal_recipes_share_the_probability_and_lose_nothing() -> None:
    found = posterior(runs_of([[0.9, 0.9], [0.9], [0.9]]))
    assert found.expected_loss == pytest.approx(0, abs=1e-4)
    assert found.best_probability.sum() == pytest.approx(1)


def test_a_diverged_recipe_does_not_change_the_others() -> None:
    good = [[0.930, 0.932], [0.928], [0.931], [0.925], [0.927]]
    alone, diverged = posterior(runs_of(good)), posterior(runs_of([*good, [0.1]]))
    assert diverged.mean[:-1] == pytest.approx(alone.mean)
    assert diverged.best_probability[-1] == 0


def test_claims_are_calibrated() -> None:
    random = np.random.default_rng(0)
    tau = np.exp(random.uniform(np.log(0.5), np.log(4), (1500, 1)))
    truth = tau * random.standard_normal((1500, 8))
    n = np.where(np.arange(8) < 3, 3.0, 1.0) * np.ones((1500, 1))
    runs = truth[:, :, None] + random.standard_normal((1500, 8, 3))
    used = np.arange(3) < n[:, :, None]
    mean = (runs * used).sum(axis=2) / n
    squares = (((runs - mean[:, :, None]) ** 2) * used).sum(axis=(1, 2))
    found = posterior(Runs(n, mean, squares), draws=512)
    row, leader = np.arange(1500), found.mean.argmax(axis=1)
    regret = truth.max(axis=1) - truth[row, leader]
    assert found.expected_loss[row, leader].mean() == pytest.approx(regret.mean(), rel=0.2)
    assert found.best_probability[row, leader].mean() == pytest.approx((regret == 0).mean(), abs=0.05)
    low, high = np.quantile(found.draws, (0.025, 0.975), axis=1)
    assert ((low <= truth) & (truth <= high)).mean() == pytest.approx(0.95, abs=0.03)
