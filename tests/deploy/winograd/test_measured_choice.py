"""Tuning by measurement: the search with exact costs, and one real measurement."""

import numpy as np
import pytest

from deploy.conversion.ncnn_net import load_net, run
from deploy.conversion.param_file import FEATURE_MASK, NO_WINOGRAD, ParamFile, parse
from deploy.conversion.parity import compare
from deploy.model_files.model_folder import open_model_folder
from deploy.winograd.measured_choice import (
    MAX_TIME_RATIO,
    cpu_times_ms,
    group_layers_by_shape,
    processor_name,
    tune_by_measurement,
    tuning_warning,
)
from deploy.winograd.rule import blob_shapes, is_3x3_stride_1

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def folder(export):
    return open_model_folder(export.path)


def off(param: ParamFile) -> set[str]:
    return {layer.name for layer in param.layers if layer.value(FEATURE_MASK) & NO_WINOGRAD}


def tune(folder, ratio):
    return tune_by_measurement(
        folder.param.read_text(), folder.weights, input_shape=SHAPE, precision="fp32", ratio=ratio
    )


def test_layers_of_one_shape_are_one_group(folder):
    param = parse(folder.param.read_text())
    groups = group_layers_by_shape(param, blob_shapes(param, folder.weights, input_shape=SHAPE))
    # Nine layers of 64 channels, nine of 32, ten of 16, and the first layer.
    assert [len(group) for group in groups] == [9, 9, 10, 1]
    assert sum(map(len, groups)) == sum(is_3x3_stride_1(layer) for layer in param.layers)


def test_changes_that_save_time_are_kept(folder):
    param = parse(folder.param.read_text())
    groups = group_layers_by_shape(param, blob_shapes(param, folder.weights, input_shape=SHAPE))
    faster_without = groups[0] | groups[2]

    def cost(network: ParamFile) -> float:
        return 100 - len(off(network) & faster_without) + len(off(network) - faster_without)

    tuned = tune(folder, lambda candidate, current, _rounds: cost(candidate) / cost(current))
    assert off(parse(tuned.text)) == set(tuned.no_winograd) == faster_without
    assert tuned.ratio == pytest.approx(81 / 100)
    record = tuned.record()
    assert (record["method"], record["processor"]) == ("measured", processor_name())


def test_rule_is_kept_if_the_final_comparison_shows_no_gain(folder):
    # Every search step (eight rounds) seems to save 10 %; the final comparison (24 rounds) shows noise.
    tuned = tune(folder, lambda _candidate, _current, rounds: 0.9 if rounds == 8 else 0.999)
    assert tuned.text == folder.param.read_text()
    assert (tuned.no_winograd, tuned.ratio) == ((), 1.0)


def test_measured_tuning_keeps_the_logits_and_changes_the_file_only_for_a_gain(folder, tmp_path):
    tuned = tune_by_measurement(folder.param.read_text(), folder.weights, input_shape=SHAPE, precision="fp32")
    # By rule the transform is on for every layer of this network.
    assert off(parse(tuned.text)) == set(tuned.no_winograd)
    assert (tuned.ratio < MAX_TIME_RATIO) == bool(tuned.no_winograd)
    (tmp_path / "tuned.param").write_text(tuned.text)
    images = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    before, after = (
        run(load_net(param, folder.weights), images) for param in (folder.param, tmp_path / "tuned.param")
    )
    assert compare(before, after).max_abs < 1e-4


def test_callables_run_interleaved_and_the_first_run_is_discarded():
    log: list[str] = []
    ticks = {"a": iter([9.0, 3.0, 1.0, 2.0] * 2), "b": iter([9.0, 5.0, 4.0, 6.0] * 2)}
    now = 0.0

    def work(name: str) -> None:
        nonlocal now
        log.append(name)
        now += next(ticks[name]) / 1e3

    times = cpu_times_ms([lambda: work("a"), lambda: work("b")], rounds=2, clock=lambda: now)
    assert "".join(log) == "aaaabbbb" + "bbbbaaaa"
    np.testing.assert_allclose(times, [[1, 1], [4, 4]])


def test_model_tuned_on_another_processor_gives_a_warning(folder):
    document = folder.document.model_copy(update={"tuning": {"processor": "Abacus 9000"}})
    assert "was tuned on Abacus 9000, but this is Slide Rule" in (
        tuning_warning(document, processor="Slide Rule") or ""
    )
    assert tuning_warning(document, processor="Abacus 9000") is None
    assert tuning_warning(folder.document) is None
