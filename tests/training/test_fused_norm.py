"""The kernels of batch normalization against PyTorch in double precision, and doing without them."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, relu

from platform.data.training_data import TrainingData
from platform.models.config import ModelConfig
from platform.models.networks import build, rectified
from platform.training import native
from platform.training.config import RunConfig
from platform.training.distributed import single
from platform.training.fused_norm import FusedBatchNorm2d, fuse
from platform.training.loop import fit
from platform.training.records import RunResult

KINDS = ("plain", "rectified", "added")
# More than one chunk of rows, and a last one that is not full.
IMAGES, SIDE = 5, 19


@pytest.fixture(autouse=True)
def _needs_the_kernels() -> None:
    if reason := native.lack():
        pytest.skip(f"no kernels here: {reason}")


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Forget what was loaded, and give the compiled kernels an empty place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native._load_once.cache_clear()
    yield tmp_path / "resnet-sweep-platform" / "kernels"
    native._load_once.cache_clear()


def example(channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return input, shortcut and gradient; the channels' means are far from zero beside their deviations."""
    draw = torch.Generator().manual_seed(channels)
    shape = (IMAGES, channels, SIDE, SIDE)
    center = torch.randn(channels, generator=draw)[:, None, None] * 20
    three = (torch.randn(shape, generator=draw) + center, *(torch.randn(shape, generator=draw) for _ in "ab"))
    x, shortcut, gradient = (each.to(dtype, memory_format=torch.channels_last) for each in three)
    return x.requires_grad_(), shortcut.requires_grad_(), gradient


def norm_of(channels: int) -> nn.BatchNorm2d:
    draw = torch.Generator().manual_seed(1)
    norm = nn.BatchNorm2d(channels, momentum=0.3)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels, generator=draw) + 0.5)
        norm.bias.copy_(torch.randn(channels, generator=draw))
        norm.running_mean = torch.randn(channels, generator=draw)
        norm.running_var = torch.rand(channels, generator=draw) + 0.5
    return norm


def both_ways(norm: nn.Module, kind: str, x: Tensor, shortcut: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the output and every gradient."""
    out = norm(x) if kind == "plain" else rectified(norm, x, shortcut if kind == "added" else None)
    wanted = [x, norm.weight, norm.bias, *([shortcut] if kind == "added" else [])]
    return [out.detach(), *torch.autograd.grad(out, wanted, gradient)]


def in_double(norm: nn.BatchNorm2d, kind: str, x: Tensor, shortcut: Tensor, gradient: Tensor) -> list[Tensor]:
    exact = deepcopy(norm).double()
    leaves = (each.detach().double().requires_grad_() for each in (x, shortcut))
    return both_ways(exact, kind, *leaves, gradient.double())


def error(got: Tensor, exact: Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [16, 32, 48, 64, 192, 512])
@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_the_kernels_compute_what_torch_computes(
    kind: str, channels: int, dtype: torch.dtype, allowed: float
) -> None:
    norm, case = norm_of(channels), example(channels, dtype)
    exact = in_double(norm, kind, *case)
    got = both_ways(FusedBatchNorm2d(deepcopy(norm)), kind, *case)
    assert [each.dtype for each in got] == [dtype, dtype, torch.float32, torch.float32, dtype][: len(got)]
    assert [error(one, other) for one, other in zip(got, exact, strict=True)] == pytest.approx(
        [0] * len(got), abs=allowed
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_comes_nearer_to_the_exact_gradients_than_torchs_own_operations(kind: str) -> None:
    norm, case = norm_of(64), example(64, torch.bfloat16)
    exact = in_double(norm, kind, *case)
    kernels = both_ways(FusedBatchNorm2d(deepcopy(norm)), kind, *case)
    plain = both_ways(deepcopy(norm), kind, *case)
    for got, torchs, true in zip(kernels, plain, exact, strict=True):
        assert error(got, true) <= 1.05 * error(torchs, true)


def test_the_running_statistics_follow_as_torchs() -> None:
    plain, fused = norm_of(32), FusedBatchNorm2d(norm_of(32))
    assert fused.state_dict().keys() == plain.state_dict().keys()
    x, shortcut, _ = example(32, torch.float32)
    for _ in range(3):
        plain(x)
        rectified(fused, x, shortcut)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    case, found = example(16, torch.bfloat16), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(both_ways(FusedBatchNorm2d(norm_of(16)), kind, *case))
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_stays_visible(kind: str, dtype: torch.dtype) -> None:
    x, shortcut, _ = example(16, dtype)
    with torch.no_grad():
        x[2, 3, 4, 5] = float("nan")
    norm = FusedBatchNorm2d(norm_of(16))
    out = norm(x) if kind == "plain" else rectified(norm, x, shortcut if kind == "added" else None)
    assert bool(out[:, 3].isnan().all())
    others = [channel for channel in range(16) if channel != 3]
    assert bool(out[:, others].isfinite().all())


def test_any_memory_layout_is_taken() -> None:
    norm, (x, shortcut, gradient) = norm_of(16), example(16, torch.float32)
    expected = both_ways(FusedBatchNorm2d(deepcopy(norm)), "added", x, shortcut, gradient)
    strided = (x.detach().contiguous().requires_grad_(), shortcut.detach().contiguous().requires_grad_())
    # As the gradient of a mean over all pixels arrives: without memory of its own.
    flat = gradient[:, :, :1, :1].expand_as(gradient)
    got = both_ways(FusedBatchNorm2d(deepcopy(norm)), "added", *strided, gradient.contiguous())
    assert all(torch.equal(one, two) for one, two in zip(got, expected, strict=True))
    one = both_ways(FusedBatchNorm2d(deepcopy(norm)), "added", x, shortcut, flat)
    two = both_ways(FusedBatchNorm2d(deepcopy(norm)), "added", x, shortcut, flat.contiguous())
    assert all(torch.equal(left, right) for left, right in zip(one, two, strict=True))


def test_evaluation_is_torchs() -> None:
    norm, (x, shortcut, _) = norm_of(16), example(16, torch.float32)
    fused = FusedBatchNorm2d(deepcopy(norm)).eval()
    by_torch = batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    assert torch.equal(fused(x), by_torch)
    assert torch.equal(rectified(fused, x, shortcut), relu(by_torch + shortcut))


def test_a_single_value_per_channel_is_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        FusedBatchNorm2d(norm_of(16))(torch.zeros(1, 16, 1, 1))


@pytest.mark.parametrize("name", ["resnet32_cifar", "resnet18_cifar", "resnet18"])
def test_a_network_is_fused_without_changing_what_it_holds(name: str) -> None:
    network = build(ModelConfig(name=name), num_classes=10)
    keys, parameters = list(network.state_dict()), [id(each) for each in network.parameters()]
    assert fuse(network) is None
    assert list(network.state_dict()) == keys
    assert [id(each) for each in network.parameters()] == parameters
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {type(module) for module in norms} == {FusedBatchNorm2d}
    assert all(module.training for module in norms)


@pytest.mark.parametrize("name", ["resnet20_cifar", "resnet18"])
def test_a_networks_gradients_are_as_near_to_the_exact_ones_as_torchs(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = build(ModelConfig(name=name), num_classes=10).to(memory_format=torch.channels_last)
        images = torch.randn(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(8)

    def gradients(network: nn.Module, pixels: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(cross_entropy(network(pixels), labels), list(network.parameters())))

    fused = deepcopy(plain)
    assert fuse(fused) is None
    exact = gradients(deepcopy(plain).double(), images.double())
    errors = [
        [error(one, true) for one, true in zip(gradients(network, images), exact, strict=True)]
        for network in (fused, plain)
    ]
    assert max(errors[0]) <= max(2 * max(errors[1]), 1e-3)


def test_a_normalization_the_kernels_do_not_fit_stays_as_it_is() -> None:
    network = nn.Sequential(
        nn.BatchNorm2d(24), nn.BatchNorm2d(16, affine=False), nn.BatchNorm2d(16, momentum=None)
    )
    assert fuse(network) is None
    assert {type(module) for module in network} == {nn.BatchNorm2d}


def test_a_run_says_which_way_it_went_and_both_ways_agree(
    config_of: Callable[..., RunConfig], data: TrainingData
) -> None:
    # Small steps: what differs by rounding must not grow from one to the next.
    sgd = {"name": "sgd", "lr": 1e-5, "momentum": 0.9, "weight_decay": 1e-4}
    config = config_of(model={"name": "resnet20_cifar"}, optimizer=sgd)
    fused, plain = run(config, data), run(config, data, fuse_norm=False)
    assert (fused.unfused, plain.unfused) == (None, "not asked for")
    assert fused.train_loss == pytest.approx(plain.train_loss, abs=1e-5)
    assert fused.train_loss != plain.train_loss


def test_without_a_compiler_torchs_operations_train(
    compiling: Path,
    monkeypatch: pytest.MonkeyPatch,
    config_of: Callable[..., RunConfig],
    data: TrainingData,
) -> None:
    monkeypatch.setenv("PATH", str(compiling.parent))
    monkeypatch.delenv("CXX", raising=False)
    result = run(config_of(epochs=1, model={"name": "resnet20_cifar"}), data)
    found = "no C++ compiler was found (of $CXX, c++, g++, clang++)"
    assert result.unfused == f"{found}; install one: sudo apt-get install g++"


def run(config: RunConfig, data: TrainingData, **how: bool) -> RunResult:
    return fit(config, data, world=single("cpu"), checkpoint_dir=None, **how)


def compiler(folder: Path, script: str) -> Path:
    path = folder / "c++"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(
    compiling: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = '[ "$1" = --version ] && exit 0\necho "In file:" >&2\necho "error: no such option" >&2\nexit 1'
    monkeypatch.setenv("CXX", str(compiler(tmp_path, script)))
    with pytest.raises(
        native.KernelsUnavailable, match="does not compile the kernels: error: no such option"
    ):
        native.load()
    assert list(compiling.iterdir()) == []


def test_a_library_that_does_not_load_is_done_without(
    compiling: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = 'for last; do :; done\n[ "$1" = --version ] || echo nonsense > "$last"'
    monkeypatch.setenv("CXX", str(compiler(tmp_path, script)))
    with pytest.raises(native.KernelsUnavailable, match="could not be compiled or loaded: "):
        native.load()


def test_the_kernels_are_compiled_once(compiling: Path) -> None:
    native.load()
    (library,) = compiling.iterdir()
    made = library.stat().st_mtime_ns
    native._load_once.cache_clear()
    native.load()
    assert library.stat().st_mtime_ns == made


def test_kernels_that_others_could_have_written_are_not_run(compiling: Path) -> None:
    compiling.mkdir(parents=True)
    compiling.chmod(0o777)
    with pytest.raises(native.KernelsUnavailable, match="writable by nobody else"):
        native.load()
    assert list(compiling.iterdir()) == []


def test_the_cache_of_kernels_is_the_users_alone(compiling: Path) -> None:
    native.load()
    assert stat.S_IMODE(compiling.stat().st_mode) & 0o022 == 0


def test_kernels_and_torch_share_their_threads() -> None:
    # In a process of its own: other tests' libraries bring copies of OpenMP.
    script = (
        "from platform.training import native; native.load(); "
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line})"
    )
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc here")
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert answer.stdout.count("libgomp") == 1
