"""Format the facts as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks import record
from benchmarks.gpu_host.facts import Fact

_RATES = (
    f"{'images/s':34} {'training':>9} {'MFU':>6} {'replays':>10} {'overhead':>13} {'memory':>9}",
    f"{'':34} {'':>9} {'':>6} {'only':>10} {'s per epoch':>13} {'GiB':>9}",
)
_LONGEST_GROUPS = 5


def table(facts: Sequence[Fact]) -> str:
    """Format all facts: host, rates, checks, accuracies, and the outcome of each step."""
    lines = [record.describe(fact["context"]) for fact in facts if fact["kind"] == "context"]
    for kind in ("environment", "rate", "equality", "capture_tests", "profile", "reference", "accuracy"):
        found = [line(fact) for fact in facts if fact["kind"] == kind]
        lines += [*_RATES, *found] if kind == "rate" and found else found
    return "\n".join([*lines, *_unfinished(facts), *_steps(facts)])


def line(fact: Fact) -> str:
    """Format one fact as a line; empty for other kinds."""
    write = _LINES.get(fact["kind"])
    return write(fact) if write else ""


def _environment(fact: Fact) -> str:
    versions = fact["versions"]
    clash = ", standard `platform` loaded first" * fact["standard_platform_first"]
    failed = "; ".join(f"{name}: {error}" for name, error in fact["failed"].items()) or "all imports work"
    gpu = fact.get("gpu") or "no GPU"
    memory = f" {fact['memory_gib']} GiB, cuDNN {fact['cudnn']}" if fact.get("gpu") else ""
    data = f"; data {fact['data']}" if "data" in fact else ""
    return f"{gpu}{memory}{data}; Python {fact['python']}, torch {versions['torch']}{clash}; {failed}"


def _rate(fact: Fact) -> str:
    changes = " ".join(f"{key}={value}" for key, value in fact["changes"].items())
    how = " ".join(word for word in (fact["way"], fact["knob"], changes) if word)
    if fact["way"] == "captured" and not fact["captured"]:
        how = how.replace("captured", "NOT CAPTURED", 1)
    name = f"{_case(fact)} {how}"
    mfu, replays = _number(fact["mfu"], ".1%"), _number(fact["replay_images_per_s"], ",.0f")
    overhead_s, memory = median(fact["beside_s"]), _number(fact["reserved_gib"], ".2f")
    numbers = f"{fact['images_per_s']:9,.0f} {mfu:>6} {replays:>10} {overhead_s:13.3f} {memory:>9}"
    compiled = f"  compiled in {fact['compile_s']:.0f} s" if fact["compile_s"] is not None else ""
    return f"{name:34} {numbers}{compiled}{_warned(fact)}"


def _equality(fact: Fact) -> str:
    result = "equal up to rounding" if fact["equal"] else f"DIFFERENT from epoch {fact['first_apart']} on"
    if not fact["captured"]:
        result = "NOT CAPTURED"
    apart = f"worst {fact['worst']:.1e}, between eager runs {fact['worst_of_itself']:.1e}"
    name = f"{_case(fact)} {fact['precision']}"
    return f"captured and eager losses, {name}: {result} ({apart}){_warned(fact)}"


def _capture_tests(fact: Fact) -> str:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(fact["counts"].items()))
    failed = "".join(f"\n  {test}" for test in fact["failed"])
    return f"tests of the captured step: {counts}{failed}"


def _profile(fact: Fact) -> str:
    total = fact["us"] or 1.0
    groups = [
        f"{name} {sums['us'] / total:.0%} ({sums['calls']:.0f})"
        for name, sums in list(fact["groups"].items())[:_LONGEST_GROUPS]
    ]
    head = f"{_case(fact)} {fact['way']}, a step: {fact['us']:,.0f} us in {fact['calls']:.0f} kernels"
    return f"{head}: {', '.join(groups)}"


def _reference(fact: Fact) -> str:
    ours, theirs = fact["ours"], fact["reference"]
    return (
        f"reference loop, {fact['model']}: {ours['images_per_s_median']:,.0f} against "
        f"{theirs['images_per_s_median']:,.0f} images/s, {fact['ratio_median']:.2f}x; "
        f"of GEMM {ours['share_of_gemm']:.1%}, of memory {ours['share_of_memory']:.1%}"
    )


def _accuracy(fact: Fact) -> str:
    goal = f"{100 * fact['target']:g} % on {fact['data']}"
    reached = (
        f"{goal} after {fact['train_s']:.1f} s of training, epoch {fact['epoch']}"
        if fact["train_s"] is not None
        else f"{goal} not reached"
    )
    changes = f" ({', '.join(fact['changes'])})" if fact["changes"] else ""
    last = f"{100 * fact['last_accuracy']:.2f} % after {fact['epochs']} epochs, {fact['total_train_s']:.1f} s"
    return f"{fact['recipe']}{changes}: {reached}; {last} (n = 1)"


def _unfinished(facts: Sequence[Fact]) -> list[str]:
    """Format the last epoch of each unfinished run."""
    ended = {fact["recipe"] for fact in facts if fact["kind"] == "accuracy"}
    last = {fact["recipe"]: fact for fact in facts if fact["kind"] == "epoch"}
    return [f"unfinished: {_epoch(fact)}" for recipe, fact in last.items() if recipe not in ended]


def _epoch(fact: Fact) -> str:
    return (
        f"{fact['recipe']}, epoch {fact['epoch']}: {100 * fact['test_accuracy']:.2f} % after "
        f"{fact['train_s']:.1f} s of training, {fact['images_per_s']:,.0f} images/s"
    )


def _steps(facts: Sequence[Fact]) -> list[str]:
    """Format the finished steps in one line, and each other step in its own line."""
    steps = [fact for fact in facts if fact["kind"] == "step"]
    done = ", ".join(f"{fact['name']} {fact['seconds']:.0f} s" for fact in steps if fact["outcome"] == "done")
    return [f"-- done: {done or 'nothing'}", *(_step(fact) for fact in steps if fact["outcome"] != "done")]


def _step(fact: Fact) -> str:
    why = f": {fact['why']}" if fact.get("why") else ""
    return f"-- {fact['name']}: {fact['outcome']}, {fact['seconds']:.0f} s{why}"


def _case(fact: Fact) -> str:
    return f"{fact['model'].removesuffix('_cifar')} {fact['batch_size']}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _warned(fact: Fact) -> str:
    return "".join(f"\n  warning: {text}" for text in fact["warnings"])


_LINES: dict[str, Callable[[Fact], str]] = {
    "environment": _environment,
    "capture_tests": _capture_tests,
    "equality": _equality,
    "rate": _rate,
    "profile": _profile,
    "reference": _reference,
    "accuracy": _accuracy,
    "epoch": _epoch,
    "step": _step,
}
