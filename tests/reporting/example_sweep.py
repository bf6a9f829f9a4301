"""Write the folder of a finished sweep with invented, plausible results.

`write_example(tmp_path, without=...)` omits files, as in the folder of an interrupted sweep.
"""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import optuna
import torch

from platform.common.atomic import write_json
from platform.data.dataset import Split
from platform.space.space_files import load_space
from platform.space.spec import SweepSpec, trial_seed
from platform.tracking.events import TrialInfo, TrialStatus
from platform.tracking.parquet_tables import TableWriter
from platform.tracking.sweep_folder import SweepFolder
from platform.training.evaluation.calibration import calibration, frequent_mistakes
from platform.training.records import EpochRecord
from platform.tuning.planning.plan import make_plan
from platform.tuning.sampling.sampler import suggest
from platform.tuning.selection.champion import Recipe, choose_champion, selection_document

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
EPOCHS = 30
STAGE_SECONDS = {"search": 5000.0, "confirm": 2700.0, "final": 300.0}


class Clock:
    def __init__(self):
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now


# (parameters, latency_ms) of the networks in a space with several objectives.
COSTS = {
    "resnet20_cifar": (269_722, 0.52),
    "resnet32_cifar": (464_154, 0.86),
    "resnet56_cifar": (853_018, 1.62),
    "resnet18_cifar": (11_173_962, 8.95),
}
_LOSSES = dict(zip(COSTS, (0.035, 0.022, 0.012, 0.0), strict=True))


def write_example(root, *, trials=24, without=(), quick=False, generated=False, objectives=None):
    folder = SweepFolder(root / "resnet18_cifar-20260301-120000")
    folder.path.mkdir(parents=True)
    spec = load_space("resnet18_cifar", overrides=[f"base.epochs={EPOCHS}", f"trials={trials}"])
    if objectives:
        networks = {"model.name": {"choice": list(COSTS)}}
        spec = SweepSpec.model_validate(
            {
                **spec.to_dict(),
                "search": {**networks, **spec.to_dict()["search"]},
                "start_from": [],
                "objectives": objectives,
            }
        )
    folder.set_state("interrupted" if without else "finished")
    label = "generated" if generated else "cifar10"
    if "plan" not in without:
        folder.spec.write_text(spec.to_yaml())
        plan = make_plan(spec, [{"CPU": 2, "GPU": 0}])
        write_json(
            folder.plan,
            {
                **plan.model_dump(mode="json"),
                "quick": quick,
                "estimate": {
                    **{stage: {"wall_s": seconds} for stage, seconds in STAGE_SECONDS.items()},
                    "wall_s": 8400.0,
                    "cost": 2.0,
                },
                "device": "cpu",
                "device_reason": "no GPU in the cluster",
                "data": {"label": label},
                "provenance": {
                    "command": "python -m platform.sweep resnet18_cifar "
                    f"--set base.epochs={EPOCHS} trials={trials} --offline",
                    "git_commit": "c79f2430aa",
                    "git_dirty": False,
                    "cpu": "Example CPU",
                    "cores": 2,
                    "versions": {"torch": "2.13.0", "ray": "2.60.0"},
                },
            },
        )
    scores = write_tables(folder, spec, trials, confirmed="selection" not in without)
    best = sorted(scores, key=lambda name: -scores[name][0])[:3]
    champion = best[0]
    if "selection" not in without:
        champion = write_selection(folder, best, scores)
    if "champion" not in without:
        config = spec.resolve(scores[champion][1])
        write_json(
            folder.champion,
            {"trial_id": champion, "config": config.model_dump(mode="json"), "params": scores[champion][1]},
        )
    if "test" not in without:
        write_test(folder)
    if "export" not in without:
        folder.export.mkdir()
        source = {"sweep": folder.sweep_id, "data": label, "test_accuracy": 0.9412}
        parity = {
            "images": 256,
            "max_abs": 9.5e-6,
            "max_logit": 11.2,
            "mean_abs": 1.2e-6,
            "top1_agreement": 1.0,
            "data": label,
        }
        write_json(
            folder.export / "model.json",
            {"schema_version": 1, "name": "resnet18_cifar", "parity": parity, "source": source},
        )
    if "benchmark" not in without:
        write_benchmark(folder)
    if "registered" not in without:
        write_json(folder.path / "registered.json", {"model": "resnet18_cifar", "version": 1})
    return folder


def write_tables(folder, spec, trials, *, confirmed):
    """Write the tables of all stages; return {trial_id: (accuracy, params)} of the completed trials."""
    rng = np.random.default_rng(3)
    clock = Clock()
    writer = TableWriter(folder, now=clock)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=5))
    scores = {}
    for number in range(trials):
        params = suggest(study.ask(), spec)
        config = spec.resolve(params, seed=trial_seed(spec, number))
        ideal = 0.1 if config.optimizer.name == "sgd" else 0.002
        distance = abs(np.log10(config.optimizer.lr / ideal))
        cutout = config.augment.cutout.length
        final = 0.945 - 0.03 * distance**2 - 0.0003 * abs(cutout - 8) - 0.01 * (config.batch_size > 256)
        final += rng.normal(0, 0.002)
        costs = {}
        if len(spec.objectives) > 1:
            final -= _LOSSES[config.model.name]
            parameters, latency_ms = COSTS[config.model.name]
            known = {"parameters": parameters, "latency_ms": latency_ms}
            costs = {name: known[name] for name in spec.objectives if name in known}
        info = TrialInfo(
            trial_id=f"t{number:03d}",
            stage="search",
            number=number,
            config=config,
            params=params,
            costs=costs,
        )
        failed = number == 9
        pruned = number > 3 and final < (0.88 if costs else 0.93)
        stop = 2 if failed else int(rng.choice([5, 15])) if pruned else EPOCHS
        write_epochs(writer, clock, info, final, stop, rng)
        if failed:
            error = (
                "Traceback (most recent call last):\n  ...\n"
                f"FloatingPointError: the loss is not a number <in epoch 3>\nlog: {folder.logs}/t009.log"
            )
            writer.trial_ended(info, TrialStatus.FAILED, error=error)
        elif pruned:
            writer.trial_ended(info, TrialStatus.PRUNED)
        else:
            writer.trial_ended(info, TrialStatus.FINISHED)
            scores[info.trial_id] = (final, params)
    if confirmed:
        best = sorted(scores, key=lambda name: -scores[name][0])[:3]
        runs = [(name, seed) for name in best for seed in range(3)]
        for number, (name, seed) in enumerate(runs):
            config = spec.resolve(scores[name][1], seed=seed)
            info = TrialInfo(
                trial_id=f"c{number // 3 + 1}-s{seed}",
                stage="confirm",
                number=number,
                config=config,
                params=scores[name][1],
                candidate=name,
            )
            write_epochs(writer, clock, info, scores[name][0], EPOCHS, rng)
            writer.trial_ended(info, TrialStatus.FINISHED)
    writer.flush()
    return scores


def write_epochs(writer, clock, info, final, stop, rng):
    writer.trial_started(info)
    for epoch in range(1, stop + 1):
        done = epoch / EPOCHS
        accuracy = float(
            np.clip(final - 0.45 * np.exp(-6 * done) + rng.normal(0, 0.012 * (1 - done)), 0.1, 1)
        )
        clock.now += timedelta(seconds=11)
        writer.epoch_finished(
            info,
            EpochRecord(
                epoch=epoch,
                epochs=EPOCHS,
                step=352 * epoch,
                lr=info.config.optimizer.lr * (1 - done),
                train_loss=float(2.0 * np.exp(-5 * done) + 0.06 + abs(rng.normal(0, 0.01))),
                train_accuracy=accuracy,
                validation_loss=1 - accuracy,
                validation_accuracy=accuracy,
                grad_norm=1.0,
                epoch_s=10.0,
                evaluation_s=1.0,
                images_per_s=4500.0,
            ),
        )


def write_selection(folder, best, scores):
    rng = np.random.default_rng(4)
    recipes = [
        Recipe(
            trial_id=name,
            searched=accuracy,
            confirmed=tuple(map(float, rng.normal(accuracy, 0.0012, 3))) if name in best else (),
        )
        for name, (accuracy, _) in sorted(scores.items(), key=lambda score: -score[1][0])
    ]
    champion = choose_champion(recipes, tolerance=0.0001)
    params = {name: settings for name, (_, settings) in scores.items()}
    document = selection_document(champion, recipes, params)
    write_json(folder.selection, {**document, "confirmation_ended": "all 9 runs are used"})
    return champion.candidate


def write_test(folder):
    rng = np.random.default_rng(6)
    confusion = np.zeros((10, 10), int)
    for row in range(10):
        wrong = rng.multinomial(60 if row not in (3, 5) else 120, rng.dirichlet(np.full(9, 0.4)))
        confusion[row, [column for column in range(10) if column != row]] = wrong
        confusion[row, row] = 1000 - wrong.sum()
    reading = {"split_sha256": "9f" * 32, "opened_utc": "2026-03-01T18:20:11+00:00", "run": "final"}
    write_json(folder.path / "test_opened.json", {"openings": [reading]})
    labels = np.repeat(np.arange(10), 1000)
    predicted = np.concatenate([np.repeat(np.arange(10), row) for row in confusion])
    logits = torch.from_numpy(rng.normal(0, 1, (10_000, 10)))
    logits[np.arange(10_000), predicted] = torch.from_numpy(rng.uniform(4, 9, 10_000))
    images = rng.integers(0, 256, (10_000, 3, 32, 32), np.uint8)
    split = Split(images, labels)
    write_json(
        folder.test,
        {
            "calibration": calibration(logits, split),
            "mistakes": frequent_mistakes(logits, split),
            "accuracy": float(np.trace(confusion) / confusion.sum()),
            "loss": 0.21,
            "per_class": [float(value) for value in confusion.diagonal() / 1000],
            "confusion": confusion.tolist(),
            "images": 10_000,
            "class_names": CLASSES,
            "opened_at": "2026-03-01T18:20:11+00:00",
            "split_sha256": "9f" * 32,
        },
    )


def write_benchmark(folder, *, trustworthy=True):
    results = []
    for threads, median in ((1, 21.4), (2, 12.1)):
        results.append(
            {
                "threads": threads,
                "batch": 1,
                "repetitions": 200,
                "latency_ms": {
                    "min": median * 0.95,
                    "p50": median,
                    "p90": median * 1.06,
                    "p99": median * 1.3,
                    "mean": median * 1.01,
                },
                "cpu_ms_p50": 21.5,
                "images_per_s": 1000 / median,
                "load_ms": 18.2,
                "first_inference_ms": median * 1.8,
                "peak_rss_mb": 92.5,
            }
        )
    noise = {"trustworthy": trustworthy, "reason": "" if trustworthy else "tasks waited for a processor"}
    folder.benchmark.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "context": {
                    "cpu": "Example CPU @ 2.5GHz",
                    "cores": 2,
                    "ncnn": "1.0.20261020",
                    "noise": noise,
                },
                "model": {"name": "resnet18_cifar", "precision": "fp32"},
                "results": results,
            }
        )
    )


def write_int8(folder):
    """Add an int8 export, and the reason why bf16 was rejected."""
    int8 = folder.path / "export-int8"
    int8.mkdir()
    fp32 = json.loads((folder.export / "model.json").read_text())
    fp32["precisions"] = {
        "best": "int8",
        "cpu_ms": {"fp32": 5.9, "int8": 2.4},
        "refused": {"bf16": "bf16 costs 1.20 points"},
    }
    write_json(folder.export / "model.json", fp32)
    write_json(
        int8 / "model.json",
        {
            "precision": "int8",
            "files": {"model.bin": {"bytes": 11_203_032}},
            "tuning": {"method": "measured"},
            "parity": {
                "images": 256,
                "max_abs": 0.21,
                "max_logit": 11.2,
                "mean_abs": 0.02,
                "top1_agreement": 0.996,
                "data": "cifar10, validation",
            },
            "accuracy": {
                "validation": {"images": 4488, "top1": 0.999, "fp32_top1": 1.0, "held_out": False},
                "test": {"images": 10_000, "top1": 0.9391, "fp32_top1": 0.9412},
            },
        },
    )
    record = json.loads(folder.benchmark.read_text())
    row = record["results"][0] | {"precision": "int8"}
    row["latency_ms"] = {key: value / 9 for key, value in row["latency_ms"].items()}
    record["results"] = [{**entry, "precision": "fp32"} for entry in record["results"]] + [row]
    write_json(folder.benchmark, record)
