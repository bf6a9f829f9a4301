"""Precision detection, and the optimizers built from a configuration."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from platform.training.acceleration import precision
from platform.training.config import Optimizer
from platform.training.optimizers import build_optimizer, load_optimizer, lr_tensor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512_bf16"}, ("bf16", "the processor has AVX512-BF16")),
        ({"avx512_bf16", "amx_bf16"}, ("bf16", "the processor has AMX")),
        ({"avx2", "avx512f"}, ("fp32", "the processor has neither AVX512-BF16 nor AMX")),
    ],
)
def test_auto_depends_on_the_processor_and_gives_the_reason(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: tuple[str, str]
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
    assert precision.choose_precision("auto", CPU) == expected


def test_requested_bf16_without_the_instructions_is_reported_as_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "cpu_flags", frozenset)
    name, reason = precision.choose_precision("bf16", CPU)
    assert name == "bf16"
    assert "slow" in reason


def test_fp32_is_fp32_on_any_processor() -> None:
    assert precision.choose_precision("fp32", CPU) == ("fp32", "requested")


OPTIMIZERS = [
    {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"name": "adam", "lr": 0.1, "weight_decay": 0.01},
    {"name": "adamw", "lr": 0.1, "weight_decay": 0.01, "beta1": 0.8},
]


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: settings["name"])
def test_two_steps_equal_the_published_update(settings: dict[str, Any]) -> None:
    config: Any = TypeAdapter(Optimizer).validate_python(settings)
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = build_optimizer(config, [weight])
    expected = [1.0, -2.0]
    buffers = [0.0, 0.0]
    squares = [0.0, 0.0]
    for step, lr in enumerate((0.1, 0.05), start=1):
        lr_tensor(optimizer).fill_(lr)
        weight.grad = torch.tensor([0.5, 0.25])
        optimizer.step()
        for i, gradient in enumerate((0.5, 0.25)):
            w, g = expected[i], gradient
            if config.name == "sgd":
                g += 0.01 * w
                buffers[i] = g if step == 1 else 0.9 * buffers[i] + g
                expected[i] = w - lr * (g + 0.9 * buffers[i])
                continue
            if config.name == "adam":
                g += 0.01 * w
            else:
                w -= lr * 0.01 * w
            buffers[i] = config.beta1 * buffers[i] + (1 - config.beta1) * g
            squares[i] = config.beta2 * squares[i] + (1 - config.beta2) * g * g
            mean, square = buffers[i] / (1 - config.beta1**step), squares[i] / (1 - config.beta2**step)
            expected[i] = w - lr * mean / (square**0.5 + config.eps)
        assert weight.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", OPTIMIZERS, ids=lambda settings: settings["name"])
def test_a_checkpoint_restores_the_state_but_not_the_settings(settings: dict[str, Any]) -> None:
    """Checkpoints written on a GPU, or before learning rates were tensors, can be resumed."""

    def build(**changes: Any) -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        return build_optimizer(TypeAdapter(Optimizer).validate_python(settings | changes), [weight]), weight

    first, weight = build()
    weight.grad = torch.tensor([0.5, 0.25])
    first.step()
    state = first.state_dict()
    elsewhere = {"lr": 0.7, "weight_decay": 0.9, "nesterov": False, "capturable": True}
    written = state["param_groups"][0]
    written |= {name: value for name, value in elsewhere.items() if name in written}
    second, _ = build(lr=0.2)
    rate = lr_tensor(second)
    load_optimizer(second, state)
    assert lr_tensor(second) is rate
    group = second.param_groups[0]
    assert (rate.item(), group["weight_decay"], group.get("capturable", False)) == (0.2, 0.01, False)
    assert group.get("nesterov") == settings.get("nesterov")
    (saved,), (loaded,) = first.state.values(), second.state.values()
    assert saved.keys() == loaded.keys()
    assert all(torch.equal(saved[name], loaded[name]) for name in saved)
