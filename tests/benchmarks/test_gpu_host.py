"""The GPU host benchmark: plan, result file, table, usage errors."""

import importlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_host import __main__ as command
from benchmarks.gpu_host.accuracy import target_on
from benchmarks.gpu_host.correctness import compare
from benchmarks.gpu_host.facts import append, document, read
from benchmarks.gpu_host.kernels import Kernel, grouped
from benchmarks.gpu_host.schedule import ITERATIONS, STEPS, Step, iterations_that_fit, limit_of, plan
from benchmarks.gpu_host.table import table
from platform.common.errors import UsageError
from tests.benchmarks.examples import WHERE

BUDGETS_S = range(0, 1200, 7)


@pytest.mark.parametrize("sizes", list(itertools.permutations((10, 40, 90, 200))))
def test_step_is_skipped_only_if_it_does_not_fit_after_more_important_ones(
    sizes: tuple[int, ...],
) -> None:
    steps = [Step(f"{seconds}", "", seconds, 2 * seconds) for seconds in sizes]
    for budget_s in BUDGETS_S:
        chosen = plan(steps, budget_s)
        assert chosen == [step for step in steps if step in chosen]
        left_s = budget_s
        for step in steps:
            assert (step in chosen) == (step.expected_s <= left_s)
            left_s -= step.expected_s if step in chosen else 0


def test_budget_is_kept_even_if_every_step_hangs() -> None:
    for budget_s in BUDGETS_S:
        left_s = float(budget_s)
        for step in STEPS:
            left_s -= limit_of(step, left_s) or 0
        assert left_s >= 0


def test_eight_minutes_fit_every_step_and_one_minute_the_first_two() -> None:
    assert plan(STEPS, 8 * 60 - 10) == list(STEPS)
    assert [step.name for step in plan(STEPS, 50)] == ["environment", "capture_tests"]


def test_every_step_names_a_function() -> None:
    for step in STEPS:
        module, _, function = step.entry.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert step.expected_s < step.limit_s


@pytest.mark.parametrize(
    ("images_per_s", "left_s", "share"),
    [(None, 1000, 0.1), (80_000, 300, 1), (80_000, 60, 0.1), (20_000, 300, 0.1), (20_000, 600, 1)],
)
def test_long_recipe_runs_completely_if_its_measured_rate_fits(
    images_per_s: float | None, left_s: float, share: float
) -> None:
    assert iterations_that_fit(images_per_s, left_s) == share * ITERATIONS


def test_truncated_line_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    assert read(path) == []
    append(path, "rate", images_per_s=1.5, worst=math.nan, several=[math.inf, 2])
    with path.open("a") as file:
        file.write('{"kind": "rate", "images')
    append(path, "step", name="rates")
    append(path, "step", name="knobs")
    assert read(path) == [
        {"kind": "rate", "images_per_s": 1.5, "worst": None, "several": [None, 2]},
        {"kind": "step", "name": "rates"},
        {"kind": "step", "name": "knobs"},
    ]


def test_captured_losses_are_compared_with_eager_losses() -> None:
    eager = [2.0, 4.0, 5.0]
    same = compare(eager, eager, eager, tolerance=1e-3)
    assert (same["equal"], same["worst"], same["first_apart"]) == (True, 0.0, None)
    near = compare([2.0, 4.002, 5.0], eager, [2.0, 4.0, 4.5], tolerance=1e-3)
    assert (near["equal"], near["first_apart"]) == (True, 2)
    assert (near["worst"], near["worst_of_itself"]) == (pytest.approx(5e-4), pytest.approx(0.1))
    assert not compare([2.0, 4.02, 5.0], eager, eager, tolerance=1e-3)["equal"]


def test_jpeg_data_set_has_a_lower_target() -> None:
    assert target_on("cifar10-jpeg75", 0.94) == 0.915
    assert target_on("cifar10", 0.94) == 0.94


def test_kernels_are_grouped_by_name() -> None:
    kernels = [
        Kernel("sm90_xmma_fprop_implicit_gemm_bf16", 50.0, 20),
        Kernel("void cudnn::bn_fw_tr_1C11_kernel_NCHW", 30.0, 20),
        Kernel("multi_tensor_apply_kernel<FusedSgd>", 5.0, 2),
        Kernel("vectorized_elementwise_kernel", 40.0, 90),
        Kernel("sm90_xmma_wgrad_implicit_gemm", 25.0, 20),
        Kernel("something else", 1.0, 1),
    ]
    assert grouped(kernels) == {
        "convolution": {"us": 75.0, "calls": 40.0},
        "elementwise": {"us": 40.0, "calls": 90.0},
        "batch norm": {"us": 30.0, "calls": 20.0},
        "foreach, optimizer": {"us": 5.0, "calls": 2.0},
        "other": {"us": 1.0, "calls": 1.0},
    }


def rate(**changes: Any) -> dict[str, Any]:
    fact = {
        "kind": "rate",
        "model": "resnet18_cifar",
        "batch_size": 512,
        "way": "captured",
        "knob": None,
        "changes": {},
        "captured": True,
        "images_per_s": 1234.4,
        "mfu": 0.125,
        "replay_images_per_s": 1300.0,
        "beside_s": [0.1, 0.3, 0.2],
        "reserved_gib": 3.5,
        "compile_s": None,
        "warnings": [],
    }
    return fact | changes


EPOCH = {"kind": "epoch", "train_s": 12.0, "test_accuracy": 0.5, "images_per_s": 900.0, "mfu": None}
FACTS = [
    {"kind": "context", "context": WHERE, "settings": {"minutes": 8}},
    {
        "kind": "environment",
        "python": "3.12.3",
        "standard_platform_first": True,
        "versions": {"torch": "2.11.0"},
        "failed": {"pydantic": "ModuleNotFoundError()"},
        "gpu": "a GPU",
        "memory_gib": 80.0,
        "cudnn": 91002,
    },
    {"kind": "capture_tests", "counts": {"passed": 15, "failed": 1}, "failed": ["test_a"]},
    {
        "kind": "equality",
        "model": "resnet32_cifar",
        "batch_size": 128,
        "precision": "bf16",
        "captured": True,
        "equal": False,
        "first_apart": 3,
        "worst": 0.25,
        "worst_of_itself": 0.0,
        "warnings": [],
    },
    rate(),
    rate(way="eager", mfu=None, replay_images_per_s=None),
    rate(captured=False, changes={"ema_decay": 0.99}, warnings=["could not be captured"]),
    rate(knob="torch.compile", compile_s=46.7),
    {
        "kind": "profile",
        "model": "resnet32_cifar",
        "batch_size": 128,
        "way": "eager",
        "us": 1000.0,
        "calls": 590.0,
        "groups": {"convolution": {"us": 600.0, "calls": 100.0}},
    },
    {
        "kind": "accuracy",
        "recipe": "resnet18_ddp",
        "changes": [],
        "data": "cifar10",
        "target": 0.94,
        "train_s": 25.0,
        "epoch": 30,
        "last_accuracy": 0.9412,
        "epochs": 32,
        "total_train_s": 26.5,
    },
    EPOCH | {"recipe": "resnet18_ddp", "epoch": 32},
    EPOCH | {"recipe": "he2016_resnet32", "epoch": 6},
    EPOCH | {"recipe": "he2016_resnet32", "epoch": 7},
    {"kind": "step", "name": "rates", "outcome": "done", "seconds": 33.2},
    {"kind": "step", "name": "he2016_resnet32", "outcome": "timed out", "seconds": 90.0, "why": "epoch 7"},
]


def test_table_has_every_result_and_unfinished_runs() -> None:
    text = table(FACTS)
    assert (
        "a GPU 80.0 GiB, cuDNN 91002; Python 3.12.3, torch 2.11.0, standard `platform` loaded first" in text
    )
    assert "pydantic: ModuleNotFoundError()" in text
    assert "tests of the captured step: 1 failed, 15 passed\n  test_a" in text
    assert "resnet32 128 bf16: DIFFERENT from epoch 3 on (worst 2.5e-01, between eager runs 0.0e+00)" in text
    lines = text.splitlines()
    assert "resnet18 512 captured                  1,234  12.5%      1,300         0.200      3.50" in lines
    assert "resnet18 512 eager                     1,234      -          -         0.200      3.50" in lines
    assert "resnet18 512 NOT CAPTURED ema_decay=0.99" in text
    assert "  warning: could not be captured" in lines
    assert "compiled in 47 s" in text
    assert "resnet32 128 eager, a step: 1,000 us in 590 kernels: convolution 60% (100)" in lines
    reached = "94 % on cifar10 after 25.0 s of training, epoch 30"
    assert f"resnet18_ddp: {reached}; 94.12 % after 32 epochs, 26.5 s (n = 1)" in lines
    unfinished = [line for line in lines if line.startswith("unfinished")]
    assert unfinished == [
        "unfinished: he2016_resnet32, epoch 7: 50.00 % after 12.0 s of training, 900 images/s"
    ]
    assert lines[-2:] == ["-- done: rates 33 s", "-- he2016_resnet32: timed out, 90 s: epoch 7"]


def test_record_has_the_context_and_every_fact() -> None:
    written = document(FACTS)
    assert (written["schema_version"], written["benchmark"]) == (1, "gpu_host")
    assert (written["context"], written["settings"]) == (WHERE, {"minutes": 8})
    assert written["results"] == FACTS[1:]


def test_show_prints_the_table_of_a_killed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.dumps(fact) for fact in FACTS]
    (tmp_path / "facts.jsonl").write_text("\n".join([*lines, '{"kind": "ra']))
    assert command.main(["--show", str(tmp_path)]) == 0
    assert capsys.readouterr().out == table(FACTS) + "\n"
    with pytest.raises(UsageError, match="already holds a run: give another --output"):
        command.main(["--tiny", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "rates,profil"], "did you mean 'profile'"),
        (["--minutes", "0"], "must be a whole number, 1 or more, got '0'"),
        (["--show", "nowhere"], "facts.jsonl is not there"),
    ],
)
def test_usage_errors(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command.main(arguments)


def test_without_a_gpu_the_command_fails_before_creating_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match=r"needs a GPU that PyTorch can use: .* --tiny runs every step"):
        command.main(["--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
