"""What a sweep found, in a few sentences, each true of what its folder holds and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from platform.tracking.results import SweepResults
from platform.tracking.text_format import looked_at, percent, plural, settings_text


def sentences(results: SweepResults) -> list[str]:
    """Return the recipe, an early end of the search, how sure it is, the test accuracy, the speed here."""
    found = [_recipe(results), _early_end(results), _certainty(results), _test(results), _speed(results)]
    return [sentence for sentence in found if sentence]


def best_latency(benchmark: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the measurement with the lowest median latency for a single image, of one worker."""
    single = [
        entry
        for entry in benchmark.get("results", [])
        if entry.get("batch", 1) == 1 and entry.get("workers", 1) == 1
    ]
    return min(single, key=lambda entry: entry["latency_ms"]["p50"], default=None)


def device_name(benchmark: Mapping[str, Any]) -> str:
    """Return the processor a benchmark ran on."""
    context = benchmark.get("context", {})
    return " ".join(str(context.get("cpu") or context.get("cpu_name") or "this device").split())


def _recipe(results: SweepResults) -> str:
    champion = results.champion
    if champion is not None:
        recipe = settings_text(champion.get("params", {})) or "the base configuration"
        return f"The best recipe is {champion.get('trial_id', 'the champion')}: {recipe}."
    ranked = results.leaderboard()
    if ranked:
        best = ranked[0]
        return (
            f"So far {best.trial_id} leads with {percent(best.validation_accuracy)} on validation "
            f"after {plural(best.epochs_done, 'epoch')}, not yet confirmed over seeds: "
            f"{settings_text(best.params)}."
        )
    return "No trial has an accuracy yet."


def _early_end(results: SweepResults) -> str:
    reason = (results.selection or {}).get("search_stopped")
    return f"The search ended before its last trial ({reason})." if reason else ""


def _certainty(results: SweepResults) -> str:
    entry = results.champion_candidate()
    if entry is None:
        return ""
    runs = int(entry["n"])
    verdict = str((results.selection or {}).get("verdict", "")).strip().replace("+-", "±")
    if verdict:
        # It gives the means and the spread, and says whether the winner is separated from the second.
        return f"Retrained with {plural(runs, 'seed')}: {verdict}"
    text = f"Retrained with {plural(runs, 'seed')} it reached {percent(entry['mean'])}"
    if runs > 1 and entry.get("std") is not None:
        text += f" ± {100 * entry['std']:.2f} (standard deviation)"
    return f"{text} on validation."


def _test(results: SweepResults) -> str:
    if results.test is None:
        return ""
    images = results.test.get("images")
    seen = f"{images:,} test images" if isinstance(images, int) else "the test images"
    accuracy = percent(results.test["accuracy"])
    return f"The final model classifies {accuracy} of {seen} rightly; they were {looked_at(results.test)}."


def _speed(results: SweepResults) -> str:
    fastest = best_latency(results.benchmark) if results.benchmark else None
    if fastest is None or results.benchmark is None:
        return ""
    cpu = device_name(results.benchmark)
    latency = fastest["latency_ms"]
    return (
        f"On {cpu} the exported model answers one image in {latency['p50']:.2f} ms (median; "
        f"99 % within {latency['p99']:.2f} ms) with {plural(int(fastest['threads']), 'thread')}"
        f"{_in_precision(results, fastest)}.{_doubt(results.benchmark)}"
    )


def _in_precision(results: SweepResults, fastest: Mapping[str, Any]) -> str:
    """Return which precision that was, where there are several, and what it costs."""
    precision = fastest.get("precision")
    shipped = [entry for entry in results.lower_precisions if entry.get("precision") == precision]
    if not shipped:
        return " in fp32" if precision == "fp32" and results.lower_precisions else ""
    test = (shipped[0].get("accuracy") or {}).get("test") or {}
    if not test:
        return f" in {precision}"
    change = 100 * (test["top1"] - test["fp32_top1"])
    images = f"{test['images']:,} test images"
    return f" in {precision}, which changes the accuracy on {images} by {change:+.2f} points"


def _doubt(benchmark: Mapping[str, Any]) -> str:
    """Return why a benchmark's figures should not be trusted, if its own noise stamp says so."""
    noise = benchmark.get("context", {}).get("noise") or {}
    if noise.get("trustworthy", True):
        return ""
    reason = noise.get("reason", "no reason given")
    return f" The machine was not quiet ({reason}): measure again before you rely on it."
