"""Calibration of the activation scales."""

from typing import get_args

import numpy as np
import pytest

from deploy.conversion.ncnn_net import READABLE, extract, load_net
from deploy.quantization.activation_scales import BINS, Method, activation_scales, scale, threshold


def histogram(values):
    largest = float(np.abs(values).max())
    counts, _ = np.histogram(np.abs(values), BINS, (0, largest))
    return counts.astype(float), largest


@pytest.fixture(scope="module")
def bell_with_outlier():
    return histogram(np.append(np.random.default_rng(0).standard_normal(1_000_000), 40.0))


def test_minmax_covers_the_outlier_and_the_others_clip_it(bell_with_outlier):
    assert threshold(bell_with_outlier, "minmax") == 40
    # 99.99 % of a normal distribution's magnitudes lie within 3.89.
    assert threshold(bell_with_outlier, "percentile") == pytest.approx(3.89, abs=0.1)
    assert 3 < threshold(bell_with_outlier, "kl") < 6


def test_percentile_is_the_upper_edge_of_the_bin_that_reaches_it():
    counts = np.zeros(BINS)
    # Cumulative fractions: 99.980 %, 99.985 %, 99.995 %, 100 %. Every bin is one unit wide.
    counts[[0, 100, 102, 500]] = 99_980, 5, 10, 5
    assert threshold((counts, float(BINS)), "percentile") == 103


@pytest.mark.parametrize("method", get_args(Method))
def test_uniform_values_are_not_clipped(method):
    uniform = np.random.default_rng(0).uniform(0, 5, 1_000_000)
    assert threshold(histogram(uniform), method) == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize("method", get_args(Method))
def test_zero_blob_gets_a_finite_scale(method):
    assert scale(threshold((np.zeros(BINS), 0.0), method)) == 1.0


def test_scales_of_a_network(export):
    net = load_net(export.path / "model.param", export.path / "model.bin", READABLE)
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32)).astype(np.float32)
    scales = activation_scales(net, images, ["in0", "3"], method="minmax")
    assert scales["in0"] == pytest.approx(127 / np.abs(images).max())
    largest = max(float(next(extract(net, image, ["3"])).max()) for image in images)
    assert scales["3"] == pytest.approx(127 / largest)
