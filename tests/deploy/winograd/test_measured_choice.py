"""The tuner's search with a clock that cannot lie, and one real run of it."""

import numpy as np
import pytest

from deploy.conversion.ncnn_net import load_net, run
from deploy.conversion.param_file import FEATURE_MASK, NO_WINOGRAD, ParamFile, parse
from deploy.conversion.parity import compare
from deploy.model_files.model_folder import open_model_folder
from deploy.winograd.measured_choice import (
    cpu_times_ms,
    kinds_of_layer,
    processor_here,
    tune_here,
    tuned_elsewhere,
)
from deploy.winograd.rule import blob_shapes, is_3x3_stride_1

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def folder(export):
    return open_model_folder(export.folder)


def off(param: ParamFile) -> set[str]:
    return {layer.name for layer in param.layers if layer.value(FEATURE_MASK) & NO_WINOGRAD}


def tune(folder, ratio):
    return tune_here(
        folder.param.read_text(), folder.weights, input_shape=SHAPE, precision="fp32", ratio=ratio
    )


def test_layers_of_one_shape_are_one_kind(folder):
    param = parse(folder.param.read_text())
    kinds = kinds_of_layer(param, blob_shapes(param, folder.weights, input_shape=SHAPE))
    # Ten of 16 channels, nine of 32, nine of 64 and the first layer, most weights first.
    assert [len(kind) for kind in kinds] == [9, 9, 10, 1]
    assert sum(map(len, kinds)) == sum(is_3x3_stride_1(layer) for layer in param.layers)


def test_what_saves_time_stays_and_what_costs_time_goes(folder):
    param = parse(folder.param.read_text())
    kinds = kinds_of_layer(param, blob_shapes(param, folder.weights, input_shape=SHAPE))
    faster_without = kinds[0] | kinds[2]

    def cost(network: ParamFile) -> float:
        return 100 - len(off(network) & faster_without) + len(off(network) - faster_without)

    tuned = tune(folder, lambda candidate, current, _rounds: cost(candidate) / cost(current))
    assert off(parse(tuned.text)) == set(tuned.no_winograd) == faster_without
    assert tuned.ratio == pytest.approx(81 / 100)
    record = tuned.record()
    assert (record["method"], record["processor"]) == ("measured", processor_here())


def test_the_rule_stays_where_the_last_comparison_shows_no_gain(folder):
    # Every step looked good: noise. Eight rounds are a step, more are the last comparison.
    tuned = tune(folder, lambda _candidate, _current, rounds: 0.9 if rounds == 8 else 0.999)
    assert tuned.text == folder.param.read_text()
    assert (tuned.no_winograd, tuned.ratio) == ((), 1.0)


def test_measured_on_this_machine_the_answers_stay(folder, tmp_path):
    tuned = tune_here(folder.param.read_text(), folder.weights, input_shape=SHAPE, precision="fp32")
    assert tuned.ratio <= 1
    (tmp_path / "tuned.param").write_text(tuned.text)
    images = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(np.float32)
    before, after = (
        run(load_net(param, folder.weights), images) for param in (folder.param, tmp_path / "tuned.param")
    )
    assert compare(before, after).max_abs < 1e-4


def test_turns_are_taken_and_the_first_run_of_each_does_not_count():
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


def test_a_model_tuned_elsewhere_is_told(folder):
    document = folder.document.model_copy(update={"tuning": {"processor": "Abacus 9000"}})
    assert "was tuned on Abacus 9000, this is Slide Rule" in (
        tuned_elsewhere(document, processor="Slide Rule") or ""
    )
    assert tuned_elsewhere(document, processor="Abacus 9000") is None
    assert tuned_elsewhere(folder.document) is None
