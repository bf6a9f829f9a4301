"""Record and read learning curves of many configurations over many seeds.

The Parquet file has one row per epoch: `config` (number), `params` (JSON from the sampler), `seed` (number),
`epoch`, `epochs`, `validation_accuracy`, `validation_loss`, `epoch_s`. The file's metadata has the space, the
data and the version of PyTorch under `settings`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from platform.common.atomic import replacing
from platform.common.errors import UserError
from platform.training.records import EpochRecord

if TYPE_CHECKING:
    from platform.space.spec import SweepSpec

_COLUMNS = (
    "config",
    "params",
    "seed",
    "epoch",
    "epochs",
    "validation_accuracy",
    "validation_loss",
    "epoch_s",
)
Train = Callable[[int, Mapping[str, Any], int], Sequence[EpochRecord]]


@dataclass(frozen=True)
class Curves:
    """Validation accuracies of every configuration, seed and epoch."""

    accuracy: NDArray[np.float64]
    """[configurations, seeds, epochs], 0..1."""
    settings: Mapping[str, Any]

    @property
    def truth(self) -> NDArray[np.float64]:
        """Mean of the last epoch's accuracy over all seeds, [configurations]: the best estimate."""
        return np.asarray(self.accuracy[:, :, -1].mean(axis=1))


def read_curves(path: Path) -> Curves:
    """Read a complete recording.

    Raises:
        UserError: the file is missing or invalid, or runs are missing.
    """
    rows, settings = _read(path)
    if not rows:
        raise UserError(
            f"no learning curves at {path}: record them with python -m benchmarks.selection --record"
        )
    found = {(row["config"], row["seed"], row["epoch"]): row["validation_accuracy"] for row in rows}
    configs, seeds, epochs = (1 + max(key[axis] for key in found) for axis in range(3))
    accuracy = np.full((configs, seeds, epochs - 1), np.nan)
    for (config, seed, epoch), value in found.items():
        accuracy[config, seed, epoch - 1] = value
    missing = int(np.isnan(accuracy).any(axis=2).sum())
    if missing:
        raise UserError(
            f"{path}: {missing} of {configs * seeds} runs are not recorded; "
            "continue with: python -m benchmarks.selection --record"
        )
    return Curves(accuracy, settings)


def draw_configurations(spec: SweepSpec, count: int) -> list[dict[str, Any]]:
    """Return `count` random points of a space; a larger `count` only appends points."""
    import optuna

    from platform.tuning.sampling.sampler import suggest

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=spec.seed))
    return [suggest(study.ask(), spec) for _ in range(count)]


def record_curves(
    path: Path,
    configurations: Sequence[Mapping[str, Any]],
    *,
    seeds: int,
    settings: Mapping[str, Any],
    train: Train,
) -> None:
    """Train the runs that are missing from the file, which is rewritten after each run.

    Each seed is trained for all configurations before the next seed.

    Args:
        path: the file; created if missing.
        configurations: parameters of each configuration.
        seeds: number of runs per configuration.
        settings: description of the recording; must equal the file's.
        train: trains (number, parameters, seed) and returns the epochs.

    Raises:
        UserError: the file has other settings.
    """
    rows, before = _read(path)
    if rows and dict(before) != dict(settings):
        differ = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
        raise UserError(
            f"{path} holds curves of other settings ({', '.join(differ)} differ); give another --curves, "
            "or remove it"
        )
    known = {(row["config"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for number, params in enumerate(configurations):
            if (number, seed) in known:
                continue
            print(
                f"configuration {number + 1} of {len(configurations)}, seed {seed + 1} of {seeds}",
                file=sys.stderr,
            )
            rows += [
                {
                    "config": number,
                    "params": json.dumps(dict(params)),
                    "seed": seed,
                    "epoch": record.epoch,
                    "epochs": record.epochs,
                    "validation_accuracy": record.validation_accuracy,
                    "validation_loss": record.validation_loss,
                    "epoch_s": record.epoch_s,
                }
                for record in train(number, params, seed)
            ]
            _write(path, rows, settings)


def record_space(
    path: Path, space: str, *, configurations: int, seeds: int, threads: int | None, data_dir: Path | None
) -> None:
    """Train the runs of a space's recipes that are missing from the file.

    Args:
        path: the file of the curves.
        space: path or name of the search space.
        configurations: number of recipes.
        seeds: number of runs per recipe.
        threads: CPU threads; None for one per core.
        data_dir: folder of the images.
    """
    from platform.space.space_files import load_space

    spec = load_space(space, overrides=[])
    print("loading PyTorch", file=sys.stderr)
    import torch

    from platform.common.cores import usable_cores
    from platform.data.catalog import prepare_dataset
    from platform.data.training_data import load_training_data
    from platform.space.spec import trial_seed
    from platform.training.distributed import single
    from platform.training.loop import fit

    torch.set_num_threads(threads or usable_cores())
    info = prepare_dataset(spec.base.data, data_dir=data_dir)
    data, world = load_training_data(spec.base.data, info), single()

    def train(number: int, params: Mapping[str, Any], seed: int) -> Sequence[EpochRecord]:
        config = spec.resolve(params, seed=trial_seed(spec, seed * 1000 + number, stage="curves"))
        return fit(config, data, world=world, checkpoint_dir=None).epochs

    described = spec.to_dict()
    record_curves(
        path,
        draw_configurations(spec, configurations),
        seeds=seeds,
        settings={
            "space": spec.name,
            **{section: described[section] for section in ("base", "search", "seed")},
            "data": info.label,
            "data_sha256": info.sha256,
            "device": world.device.type,
            "torch": str(torch.__version__),
        },
        train=train,
    )


def _read(path: Path) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    if not path.exists():
        return [], {}
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, memory_map=False, partitioning=None)
        settings = json.loads((table.schema.metadata or {})[b"settings"])
        return table.select(list(_COLUMNS)).to_pylist(), settings
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a file of learning curves: {error}") from None


def _write(path: Path, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({name: [row[name] for row in rows] for name in _COLUMNS})
    table = table.replace_schema_metadata({"settings": json.dumps(dict(settings))})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
