"""Comparison of two sets of logits, and the random images for it."""

import numpy as np
import pytest

from deploy.conversion.parity import compare, random_images
from platform.common.errors import UserError


def test_differences_of_a_hand_made_case():
    reference = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.25], [2.0, 1.0]], np.float32)
    logits = reference + np.array([[0.25, 0], [0, 0], [0, 0.5], [0, 0.25]], np.float32)
    parity = compare(reference, logits)
    assert (parity.images, parity.max_abs, parity.mean_abs, parity.top1_agreement) == (4, 0.5, 0.125, 0.75)
    assert (parity.max_logit, parity.max_relative) == (2, 0.25)


def test_equal_logits_have_no_relative_difference():
    assert compare(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32)).max_relative == 0


@pytest.mark.parametrize(("torch_value", "ncnn_value", "name"), [(np.nan, 0, "PyTorch"), (0, np.inf, "ncnn")])
def test_nonfinite_logits_are_rejected(torch_value, ncnn_value, name):
    with pytest.raises(UserError, match=f"{name} gives logits that are not finite"):
        compare(np.full((2, 2), torch_value, np.float32), np.full((2, 2), ncnn_value, np.float32))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 30)])
def test_random_images_differ_and_use_the_whole_range(shape):
    images = random_images(16, shape)
    assert images.shape == (16, *shape)
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(16, -1), axis=0)) == 16
    assert images.min() < 20
    assert images.max() > 235
    assert np.array_equal(images, random_images(16, shape))
