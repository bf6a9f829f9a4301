"""Kill sweeps at random moments, resume them, and compare the results with an undisturbed sweep.

    python -m benchmarks.random_kills --rounds 20                               # half an hour on two cores
    python -m benchmarks.random_kills --rounds 20 --folder kills --minutes 9    # repeat to continue

A round is one SIGKILL at a random moment: of the driver and its process group, of a trial's actor, of a Ray
Train worker (in the confirmation or the final run, two workers each), of the raylet, or of all processes (the
machine). If the driver died, `python -m platform.sweep --resume` follows; after the last kill the sweep runs
to its end. Its tables, selection, test accuracy and MLflow runs must equal those of the undisturbed sweep bit
by bit, no epoch may have been completed twice, and no process may have survived the driver.

The sweep takes seconds and has one slot, since several would finish in random order: five trials of up to
four epochs, TPE, ASHA, two confirmation seeds, a final run, the export and the engine's benchmark.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.command import Parser, at_least, say
from benchmarks.killed_sweep import Kill, KilledSweep, differences
from platform.common.errors import UserError, run_command

SPACE = """\
about: A short sweep for random kills.
base:
  model: {name: resnet20_cifar}
  data: {name: generated, train_limit: 256, validation_size: 128}
  epochs: 4
  batch_size: 64
  optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
  schedule: {name: constant}
search:
  optimizer.lr: {log_uniform: [0.001, 0.2]}
  label_smoothing: {uniform: [0.0, 0.2]}
trials: 5
concurrent_trials: 1
sampler: {name: tpe, startup_trials: 2}
scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}
confirm: {candidates: 1, seeds: 2, workers_per_run: 2}
final: {workers_per_run: 2}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, resume and compare sweeps; print the table, write the record."""
    given = _parser().parse(arguments)
    where = record.context()
    root = (given.folder or Path(tempfile.mkdtemp(prefix="random-kills-"))).absolute()
    root.mkdir(parents=True, exist_ok=True)
    space = root / "killed.yaml"
    space.write_text(SPACE, encoding="utf-8")
    say(f"folder: {root}")
    reference = KilledSweep(root / "whole")
    if not reference.finished and reference.run(space) != 0:
        raise UserError(f"the undisturbed sweep failed; see {reference.path / 'output.txt'}")
    end_s = time.monotonic() + 60 * given.minutes
    results: list[dict[str, Any]] = []
    killed = 0
    while killed < given.rounds:
        number = len(results) + 1
        most = min(given.kills_per_sweep, given.rounds - killed)
        sweep = KilledSweep(root / f"sweep-{number}")
        counts = _kinds(results)
        kills = run_with_kills(sweep, space, kills=most, seed=given.seed + number, end_s=end_s, counts=counts)
        if kills is None:
            break
        results.append(compare_outcomes(sweep, reference, kills) | {"sweep": number})
        killed += len(kills)
    print(table(where, results))
    if given.json:
        settings = {"rounds": given.rounds, "kills_per_sweep": given.kills_per_sweep, "seed": given.seed}
        record.write(given.json, record.document("random_kills", where, settings, results))
    if killed < given.rounds:
        say(f"{killed} of {given.rounds} rounds; to continue, repeat the command with --folder {root}")
        return 0
    return 0 if all(result["equal"] for result in results) else 1


def run_with_kills(
    sweep: KilledSweep,
    space: Path,
    *,
    kills: int,
    seed: int,
    end_s: float = float("inf"),
    counts: Mapping[str, int] | None = None,
) -> list[Kill] | None:
    """Run a sweep to its end with `kills` kills; an earlier call's sweep and kills are continued.

    Args:
        sweep: the sweep.
        space: its space file.
        kills: number of kills.
        seed: seed of the moments and the victims.
        end_s: time on the monotonic clock after which the sweep is not resumed.
        counts: number of kills of each kind so far; the rarest kinds come first.

    Returns:
        the kills, or None if `end_s` was reached first.

    Raises:
        UserError: the sweep failed without a kill.
    """
    noted = sweep.path / "kills.jsonl"
    done = [Kill(**json.loads(line)) for line in noted.read_text().splitlines()] if noted.exists() else []
    while not sweep.finished:
        if time.monotonic() > end_s:
            return None
        with sweep.running(space) as process:
            while len(done) < kills and process.poll() is None:
                rng = random.Random(f"{seed} {len(done)}")  # noqa: S311 - moments, not secrets
                known = Counter(counts or {}) + Counter(kill.kind for kill in done)
                kinds = sweep.killable()
                rarest = min(known[kind] for kind in kinds)
                kind = rng.choice([kind for kind in kinds if known[kind] == rarest])
                kill = sweep.kill(process, kind, rng)
                if kill is None:
                    break
                done.append(kill)
                with noted.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(kill)) + "\n")
                say(f"{sweep.path.name}: {kill.kind}, {kill.moment}")
                if kill.resumed:
                    break
            code = process.wait()
        died = bool(done) and done[-1].resumed and code != 0
        if code != 0 and not died:
            raise UserError(
                f"a sweep that was not killed exited with {code}; see {sweep.path / 'output.txt'}"
            )
    return done


def compare_outcomes(sweep: KilledSweep, reference: KilledSweep, kills: Sequence[Kill]) -> dict[str, Any]:
    """Compare a killed sweep with the undisturbed one; return its row of the record."""
    found = differences(reference.outcome(), sweep.outcome())
    repeated = sweep.repeated()
    left = [name for kill in kills for name in kill.left]
    return {
        "kills": [asdict(kill) for kill in kills],
        "differences": found,
        "repeated": repeated,
        "epochs": sum(len(records) for records in sweep.outcome()["epochs"].values()),
        "trials": len(sweep.outcome()["trials"]),
        "equal": not (found or repeated or left),
    }


def _kinds(results: Sequence[Mapping[str, Any]]) -> Counter[str]:
    return Counter(kill["kind"] for result in results for kill in result["kills"])


def _parser() -> Parser:
    parser = Parser("random_kills", "Kill sweeps at random moments, resume them, and compare the results.")
    add: Any = parser.add_argument
    add("--rounds", type=at_least(1), default=20, metavar="N", help="number of kills; default: 20")
    add("--kills-per-sweep", type=at_least(1), default=5, metavar="N", help="kills per sweep; default: 5")
    add("--seed", type=at_least(0), default=0, metavar="N", help="seed of moments and victims; default: 0")
    add("--folder", type=Path, metavar="DIR", help="folder, to continue or new; default: temporary")
    add(
        "--minutes",
        type=float,
        default=float("inf"),
        metavar="M",
        help="time budget in minutes; default: none",
    )
    return parser


def table(where: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """Format the results: one line per kill, one summary per sweep."""
    head = f"{'sweep':>5} {'round':>5}  {'killed':8} {'after':28} {'then':9} survivors"
    lines = [record.describe(where), "", head]
    number = 0
    for result in results:
        for kill in result["kills"]:
            number += 1
            then = "--resume" if kill["resumed"] else "continues"
            what = f"{kill['kind']:8} {kill['moment']:28} {then:9}"
            lines.append(f"{result['sweep']:5} {number:5}  {what} {len(kill['left'])}")
        wrong = [*result["differences"], *(f"twice: {name}" for name in result["repeated"])]
        summary = "equal to the undisturbed sweep" if not wrong else f"{len(wrong)} differences: {wrong[0]}"
        lines.append(
            f"{result['sweep']:5}        {result['trials']} runs, {result['epochs']} epochs: {summary}"
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(_kinds(results).items()))
    good = sum(bool(result["equal"]) for result in results)
    total = f"{number} kills ({kinds}); {good} of {len(results)} sweeps equal to the undisturbed one"
    return "\n".join([*lines, "", total])


if __name__ == "__main__":
    run_command(main)
