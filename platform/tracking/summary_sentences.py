"""Answer the first questions about a sweep's results in a few sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from platform.common.text_format import (
    approximate_duration,
    duration,
    percent,
    plural,
    probability_text,
    settings_text,
)
from platform.tracking.events import TrialStatus
from platform.tracking.results import SweepResults


def summary_sentences(results: SweepResults) -> list[str]:
    """Return the answers that the final summary on the console shows: all but data, budget and cost."""
    return [f"{question}: {answer}" for question, answer in answers(results)[:-2]]


def answers(results: SweepResults) -> list[tuple[str, str]]:
    """Return (question, answer): configuration, certainty, accuracies, latency, data and budget, cost.

    Results that do not exist yet are left out, except for data, budget and cost.
    """
    found = [
        _configuration(results),
        ("Runs", _early_stop(results)),
        ("Certainty", (results.selection or {}).get("verdict", "")),
        ("Validation accuracy", _validation_accuracy(results)),
        ("Best single run", _best_single_run(results)),
        ("Confirmation", _confirmation(results)),
        ("Test accuracy", _test_accuracy(results)),
        ("Latency", _latency(results)),
        ("Data and budget", _budget(results) or "unknown: no trial has started"),
        ("Cost", _cost(results)),
    ]
    return [(question, answer) for question, answer in found if answer]


def headline(results: SweepResults) -> list[str]:
    """Return the result in two sentences, without terms of the field where possible."""
    trials = plural(len(results.of_stage("search")), "trial")
    if results.champion is None:
        ranked = results.leaderboard()
        if not ranked:
            return ["No trial has an accuracy yet."]
        best = (
            f"No recipe has been chosen yet: the best of {trials} so far, {ranked[0].trial_id}, classifies "
            f"{percent(ranked[0].validation_accuracy)} of the validation images correctly."
        )
        return [best, f"The sweep has run for {_cost(results)}"]
    entry = results.champion_candidate()
    if results.test is not None:
        reached = f"{percent(results.test['accuracy'])} of the test images of {results.data_label()}"
    elif entry is not None:
        mean = (entry.get("estimate") or entry)["mean"]
        reached = f"{percent(mean)} of the validation images of {results.data_label()}"
    else:
        reached = "a share of the images that has not been measured yet"
    fastest = best_latency(results.benchmark) if results.benchmark else None
    speed = ""
    if fastest is not None and results.benchmark is not None:
        speed = (
            f" and needs {fastest['latency_ms']['p50']:.2f} ms per image on {device_name(results.benchmark)}"
            f"{_precision(results, fastest)}"
        )
    champion = results.champion["trial_id"]
    return [
        f"The best recipe of {trials}, {champion}, classifies {reached} correctly{speed}.",
        f"{_certainty(results)}; the sweep took {_cost(results)}",
    ]


def best_latency(benchmark: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the result with the lowest median latency at batch size 1 with one worker."""
    single = [
        entry
        for entry in benchmark.get("results", [])
        if entry.get("batch", 1) == 1 and entry.get("workers", 1) == 1
    ]
    return min(single, key=lambda entry: entry["latency_ms"]["p50"], default=None)


def device_name(benchmark: Mapping[str, Any]) -> str:
    """Return the name of the CPU that a benchmark ran on."""
    context = benchmark.get("context", {})
    return " ".join(str(context.get("cpu") or context.get("cpu_name") or "this device").split())


def _configuration(results: SweepResults) -> tuple[str, str]:
    champion = results.champion
    if champion is not None:
        settings = settings_text(champion.get("params", {})) or "the base configuration"
        return "Best configuration", f"{champion.get('trial_id', 'the champion')}, {settings}."
    ranked = results.leaderboard()
    if not ranked:
        return "Best trial so far", "none: no trial has an accuracy yet."
    best = ranked[0]
    return "Best trial so far", (
        f"{best.trial_id}, validation accuracy {percent(best.validation_accuracy)} "
        f"after {plural(best.epochs_done, 'epoch')}, not yet confirmed over several seeds: "
        f"{settings_text(best.params)}."
    )


def _early_stop(results: SweepResults) -> str:
    reason = (results.selection or {}).get("search_stopped")
    return f"fewer than planned: {reason}." if reason else ""


def _validation_accuracy(results: SweepResults) -> str:
    """Return the champion's expected accuracy and its interval."""
    entry = results.champion_candidate()
    if entry is None:
        return ""
    estimate = entry.get("estimate")
    if not estimate:
        return f"{percent(entry['mean'])} in a single run."
    low, high = estimate["interval95"]
    return (
        f"{percent(estimate['mean'])} (95 % interval {100 * low:.2f} to {percent(high)}, "
        f"{plural(int(entry['n']), 'new run')})."
    )


def _best_single_run(results: SweepResults) -> str:
    """Return the best run of the search, and how much less its recipe is expected to reach again."""
    single = (results.selection or {}).get("best_single_run")
    if not single or not single["estimate"]:
        return ""
    points = 100 * (single["accuracy"] - single["estimate"]["mean"])
    return (
        f"{single['trial_id']} with {percent(single['accuracy'])}; a new run of this recipe is expected at "
        f"{percent(single['estimate']['mean'])}, {abs(points):.2f} points "
        f"{'lower' if points >= 0 else 'higher'}."
    )


def _confirmation(results: SweepResults) -> str:
    """Return the number of confirmation runs, and why there were no more."""
    selection = results.selection or {}
    entries = selection.get("candidates", [])
    if not entries or "confirmation_ended" not in selection:
        return ""
    runs = plural(sum(int(entry["n"]) for entry in entries), "run")
    return f"{runs} of {plural(len(entries), 'candidate')}; {selection['confirmation_ended']}."


def _certainty(results: SweepResults) -> str:
    """Return how sure the choice is, for a reader without statistics."""
    entry, selection = results.champion_candidate(), results.selection or {}
    if entry is None:
        return "It has not been compared with other recipes over several seeds"
    estimate = entry.get("estimate")
    if not estimate or selection.get("recipes", 1) < 2:
        return "No other recipe was trained completely for comparison"
    loss = f"another recipe may be better, by {100 * estimate['expected_loss']:.2f} points on average"
    if selection.get("equal"):
        loss = f"{' and '.join(selection['equal'])} {'is' if len(selection['equal']) == 1 else 'are'} as good"
    probability = probability_text(estimate["best_probability"])
    return f"It is the best of {selection['recipes']} with {probability}; {loss}"


def _test_accuracy(results: SweepResults) -> str:
    if results.test is None:
        return ""
    images, accuracy = results.test.get("images"), float(results.test["accuracy"])
    count = ""
    if isinstance(images, int):
        half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / images)
        whole = results.test.get("split_images", images)
        of = f" of {whole:,}" if whole != images else ""
        count = f"{images:,}{of} images, 95 % interval ± {100 * half:.2f}; "
    readers = Counter(reading.by for reading in results.test_readings())
    times = ", ".join(f"{'once' if n == 1 else f'{n} times'} by the {by}" for by, n in readers.items())
    return f"{percent(accuracy)} ({count}test split read {times})."


def _latency(results: SweepResults) -> str:
    fastest = best_latency(results.benchmark) if results.benchmark else None
    if fastest is None or results.benchmark is None:
        return ""
    latency = fastest["latency_ms"]
    return (
        f"{latency['p50']:.2f} ms per image on {device_name(results.benchmark)} (median; "
        f"p99 {latency['p99']:.2f} ms), {plural(int(fastest['threads']), 'thread')}"
        f"{_precision(results, fastest)}.{_noise_warning(results.benchmark)}"
    )


def _precision(results: SweepResults, fastest: Mapping[str, Any]) -> str:
    """Return the precision of a result and its change of accuracy; empty if there is only fp32."""
    precision = fastest.get("precision")
    shipped = [entry for entry in results.lower_precisions if entry.get("precision") == precision]
    if not shipped:
        return ", fp32" if precision == "fp32" and results.lower_precisions else ""
    test = (shipped[0].get("accuracy") or {}).get("test") or {}
    if not test:
        return f", {precision}"
    change = 100 * (test["top1"] - test["fp32_top1"])
    return f", {precision} (test accuracy {change:+.2f} points compared with fp32)"


def _noise_warning(benchmark: Mapping[str, Any]) -> str:
    noise = benchmark.get("context", {}).get("noise") or {}
    if noise.get("trustworthy", True):
        return ""
    reason = noise.get("reason", "no reason given")
    return f" The machine was busy ({reason}), so the figures are unreliable: repeat the benchmark."


def _budget(results: SweepResults) -> str:
    """Return the network, the data, the epochs, the number of trials, and the settings given with --set."""
    rows = results.of_stage("search")
    config = (results.champion or {}).get("config") or (dict(rows[0].config) if rows else {})
    if "model" not in config:
        return ""
    data = config.get("data") or {}
    limit, held_out = data.get("train_limit"), int(data.get("validation_size") or 0)
    images = f"{limit:,} training images" if limit else "all training images"
    length = (
        f"{config['epochs']} epochs" if config.get("epochs") else f"{config.get('iterations')} iterations"
    )
    pruned = sum(row.status is TrialStatus.PRUNED for row in rows)
    parts = [
        f"{config['model']['name']} on {results.data_label() or data.get('name')}",
        f"{images}, {held_out:,} of the training split held out for validation",
        f"{length} per run at most",
        f"{plural(len(rows), 'trial')} ({pruned} stopped early)",
        f"{sum(row.epochs_done for row in results.trials):,} epochs in all stages",
    ]
    if overrides := results.overrides():
        parts.append(f"--set {' '.join(overrides)}")
    return "; ".join(parts) + "."


def _cost(results: SweepResults) -> str:
    """Return the wall time and the cost, with those of the plan."""
    estimate = (results.plan or {}).get("estimate") or {}
    wall_s, planned_s = results.wall_s(), estimate.get("wall_s")
    if planned_s is None:
        return f"{duration(wall_s)} (no estimate in the plan)."
    text = f"{duration(wall_s)} (planned: {approximate_duration(float(planned_s))})"
    if estimate.get("cost") is not None:
        cost = estimate["cost"]
        text += f", cost {cost * wall_s / planned_s:.2f} (planned: {cost:.2f})"
    return f"{text}."
