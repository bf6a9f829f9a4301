"""Properties of the train/validation split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform.common.errors import UsageError
from platform.data.config import DataConfig
from platform.data.splits import train_validation_indices


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, DataConfig]:
    sizes = draw(st.lists(st.integers(1, 40), min_size=2, max_size=6))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = labels[np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))]
    config = DataConfig(
        validation_size=draw(st.integers(1, len(labels) - 1)),
        split_seed=draw(st.integers(0, 1000)),
        train_limit=draw(st.none() | st.integers(1, 2 * len(labels))),
    )
    return labels, config


def assert_stratified(part: np.ndarray, whole: np.ndarray, labels: np.ndarray) -> None:
    """Each class has its share of `part`, to within one image."""
    exact = np.bincount(labels[whole], minlength=6) * len(part) / len(whole)
    assert (np.abs(np.bincount(labels[part], minlength=6) - exact) < 1).all()


@given(cases())
def test_without_a_limit_the_parts_are_disjoint_complete_and_stratified(case) -> None:
    labels, config = case
    train, validation = train_validation_indices(labels, config.model_copy(update={"train_limit": None}))
    assert len(validation) == config.validation_size
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert_stratified(validation, np.arange(len(labels)), labels)
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


@given(cases())
def test_a_limit_takes_stratified_subsets(case) -> None:
    labels, config = case
    whole_train, whole_validation = train_validation_indices(
        labels, config.model_copy(update={"train_limit": None})
    )
    train, validation = train_validation_indices(labels, config)
    limit = config.train_limit or len(labels)
    assert len(train) == min(limit, len(whole_train))
    if config.train_limit is not None:
        assert len(validation) == min(len(whole_validation), max(1, len(train) // 2))
    assert set(train) <= set(whole_train)
    assert set(validation) <= set(whole_validation)
    assert_stratified(train, whole_train, labels)
    assert_stratified(validation, whole_validation, labels)


@given(cases())
def test_equal_seeds_give_equal_splits(case) -> None:
    labels, config = case
    for first, second in zip(
        train_validation_indices(labels, config), train_validation_indices(labels, config), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_splits() -> None:
    labels = np.arange(1000) % 10
    parts = [
        set(train_validation_indices(labels, DataConfig(validation_size=100, split_seed=seed))[1])
        for seed in (0, 1)
    ]
    assert len(parts[0] & parts[1]) < 50


def test_the_split_never_changes_between_versions() -> None:
    """Results of different releases are comparable only with the same validation images."""
    _, validation = train_validation_indices(np.arange(50) % 5, DataConfig(validation_size=10))
    assert validation.tolist() == [2, 3, 11, 13, 15, 20, 21, 32, 39, 44]


def test_the_default_split_is_45000_and_5000() -> None:
    train, validation = train_validation_indices(np.arange(50_000) % 10, DataConfig())
    assert (len(train), len(validation)) == (45_000, 5_000)
    assert np.bincount(np.arange(50_000)[validation] % 10).tolist() == [500] * 10


@pytest.mark.parametrize("size", [60, 61])
def test_validation_size_must_be_below_the_training_set_size(size: int) -> None:
    with pytest.raises(UsageError, match=f"smaller than the training set of 60 images, got {size}"):
        train_validation_indices(np.arange(60) % 10, DataConfig(validation_size=size))
