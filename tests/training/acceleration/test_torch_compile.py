"""Optional torch.compile: which batches run compiled, and that the results stay the same."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from platform.common.errors import UserError
from platform.data.training_data import TrainingData
from tests.training.examples import ConfigOf, run


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace the compiler by one that only traces; return the sizes of the batches it runs."""
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> Callable[..., Any]:
        def call(*arguments: torch.Tensor) -> Any:
            seen.append(next(len(a) for a in arguments if a.dim() == 4 and a.shape[1:] == (3, 32, 32)))
            return graph(*arguments)

        return call

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("accumulate", "expected"), [(1, [32, 32, 32]), (3, [11] * 5)])
def test_only_full_batches_run_compiled(
    config_of: ConfigOf,
    data: TrainingData,
    small_network: None,
    sizes: list[int],
    accumulate: int,
    expected: list[int],
) -> None:
    # An epoch has two batches of 32 and one of 8; three micro-batches of 32 are 10, 11 and 11.
    config = config_of(epochs=1)
    plain = run(config, data, accumulate=accumulate)
    result = run(config, data, accumulate=accumulate, compile_network=True)
    assert sizes == expected
    assert result.epochs[0].train_loss == pytest.approx(plain.epochs[0].train_loss, rel=1e-5)
    assert result.epochs[0].validation_loss == pytest.approx(plain.epochs[0].validation_loss, rel=1e-5)
    assert plain.compile_s is None
    assert result.compile_s is not None
    assert result.compile_s > 0


def test_a_failing_compiler_is_reported_in_one_line(
    config_of: ConfigOf, data: TrainingData, small_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a page of hints")

    monkeypatch.setattr(torch, "compile", lambda network, **_: Broken(network))
    with pytest.raises(UserError, match=r"No working C\+\+ compiler found; leave out --compile$"):
        run(config_of(), data, compile_network=True)
