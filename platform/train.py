"""Train the base configuration of a search space, or a recipe, once. No Ray, no MLflow.

    python -m platform.train resnet32_cifar
    python -m platform.train resnet32_cifar --set epochs=10 optimizer.lr=0.05 --output runs/short
    python -m platform.train --resume runs/short
    python -m platform.train resnet18_cifar --compile --accumulate 2
    python -m platform.train --trial resnet32_cifar-20260101-120000 t007     # a sweep's trial, exactly
    torchrun --standalone --nproc_per_node=2 -m platform.train resnet32_cifar

Progress goes to stderr, the result to stdout. The folder of the run holds metrics.csv, curves.svg,
record.json, last.pt (to go on from) and model.pt (for platform.evaluate, platform.predict, deploy.export).
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from platform.errors import Interrupted, UsageError, UserError, run_command
from platform.space.space_files import load_run
from platform.training import run_folder
from platform.training.config import RunConfig
from platform.training.inputs.budget import budget_of
from platform.training.run_folder import LAST, Repeats, RunRequest
from platform.tuning.execution.interrupts import sigterm_as_sigint

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo
    from platform.training.distributed import World
    from platform.training.records import RunResult


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the base configuration of a search space, or a recipe, once."""

    space: Annotated[str | None, tyro.conf.Positional] = None
    """A name in search_spaces/, or the path of a .yaml file."""
    settings: Annotated[
        tuple[tuple[str, ...], ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(name="set", metavar="KEY=VALUE ..."),
    ] = ()
    """Settings of the run to change: epochs=10, optimizer.lr=0.05, ..."""
    data_dir: Path | None = None
    """Where the images are; default: $CIFAR10_DIR, else the cache, else a download."""
    output: Path | None = None
    """Folder of the run; default: runs/train-SPACE-TIME."""
    resume: Path | None = None
    """Folder of a run to go on with, instead of SPACE."""
    seed: int | None = None
    """Seed of initialization, order and augmentation, in place of the file's."""
    accumulate: int | None = None
    """Pieces into which each worker cuts its part of a batch, where memory is short; default: 1."""
    compile: bool = False
    """Pass the network through torch.compile first: it takes a while, and the step may then be faster."""
    trial: Annotated[tuple[str, str] | None, tyro.conf.arg(metavar="SWEEP TRIAL")] = None
    """Repeat one trial of a sweep, instead of SPACE: the sweep's folder or id, and the trial's id."""


def main() -> int:
    """Run the command."""
    arguments = tyro.cli(Arguments, prog="python -m platform.train")
    first = os.environ.get("RANK", "0") == "0"
    try:
        request, folder = _request(arguments)
        with sigterm_as_sigint():
            return _train(request, folder, arguments, first=first)
    except UserError as error:
        if first:
            raise
        # Every worker meets the same error; the first one tells it.
        return error.exit_code


def _request(arguments: Arguments) -> tuple[RunRequest, Path]:
    if arguments.resume:
        return _resumed(arguments)
    return _repeated(arguments) if arguments.trial else _new(arguments)


def _repeated(arguments: Arguments) -> tuple[RunRequest, Path]:
    """Return what to do and where, for a run that repeats a trial of a sweep."""
    from platform.tracking.sweep_folder import find_sweep
    from platform.tuning.journal.trial_model import find_task

    if arguments.space or arguments.settings or arguments.seed is not None or arguments.trial is None:
        raise UsageError("--trial repeats a trial as it was: give neither SPACE, --set nor --seed with it")
    sweep = find_sweep(arguments.trial[0], root=Path("runs"))
    task = find_task(sweep, arguments.trial[1])
    repeats = Repeats(
        sweep=sweep.sweep_id,
        trial_id=task.trial_id,
        data_path=task.data_path,
        data_sha256=task.provenance.get("data_sha256", ""),
        final=task.final,
        workers=task.workers,
        threads=task.threads,
        accumulate=task.accumulate,
    )
    name = f"train-{sweep.sweep_id}-{task.trial_id}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    folder = _unused(arguments.output or Path("runs") / name)
    data_dir = str(arguments.data_dir.absolute()) if arguments.data_dir else None
    return RunRequest(space=sweep.space, config=task.run, data_dir=data_dir, repeats=repeats), folder


def _unused(folder: Path) -> Path:
    if (folder / LAST).exists():
        raise UsageError(
            f"{folder} holds a run already: go on with --resume {folder}, or give another --output"
        )
    return folder


def _new(arguments: Arguments) -> tuple[RunRequest, Path]:
    """Return what to do and where, for a run that begins."""
    if arguments.space is None:
        raise UsageError("name what to train: python -m platform.train SPACE (or --resume DIR)")
    settings = [text for group in arguments.settings for text in group]
    if arguments.seed is not None:
        settings.append(f"seed={arguments.seed}")
    overrides = [text if text.startswith("base.") else f"base.{text}" for text in settings]
    config = load_run(arguments.space, overrides=overrides)
    name = Path(arguments.space).stem
    # Every worker computes the name, but only the first one's is used.
    own = f"train-{name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    folder = _unused(arguments.output or Path("runs") / own)
    data_dir = str(arguments.data_dir.absolute()) if arguments.data_dir else None
    return RunRequest(space=arguments.space, config=config, data_dir=data_dir), folder


def _resumed(arguments: Arguments) -> tuple[RunRequest, Path]:
    """Return what to do and where, for a run that goes on."""
    folder = arguments.resume
    if (
        arguments.space
        or arguments.settings
        or arguments.output
        or arguments.seed is not None
        or arguments.trial
        or folder is None
    ):
        raise UsageError(
            "--resume goes on with a run as it began: "
            "give neither SPACE, --set, --seed, --trial nor --output with it"
        )
    request = run_folder.read_request(folder)
    if arguments.data_dir:
        request = request.model_copy(update={"data_dir": str(arguments.data_dir.absolute())})
    return request, folder


def _train(request: RunRequest, folder: Path, arguments: Arguments, *, first: bool) -> int:
    """Train, and write the folder."""
    budget_of(request.config, images=1, workers=int(os.environ.get("WORLD_SIZE", "1")))
    _say("loading PyTorch", first)
    from platform.data.catalog import open_info
    from platform.tracking.provenance import collect
    from platform.training.checkpoint import read_records
    from platform.training.diagnostics.diagnose import diagnose
    from platform.training.distributed import world_from_env
    from platform.training.inputs.batches import load_data
    from platform.training.loop import fit
    from platform.training.progress import Progress

    config, repeats = request.config, request.repeats
    if repeats is not None:
        _run_alike(repeats)
    with world_from_env() as world:
        folder = Path(world.share_from_first(str(folder)))
        info = open_info(Path(_path_of_data(request, world)))
        data = load_data(
            config.data,
            info,
            final=repeats is not None and repeats.final,
            notify=lambda message: _say(message, world.is_first),
        )
        _say_what(config, info, world, len(data.train.labels))
        if arguments.compile:
            _say("compiling the network, which takes a while", world.is_first)
        provenance = collect()
        if world.is_first:
            run_folder.write_request(folder, request)
        progress = Progress(
            folder, finished=read_records(folder) if world.is_first else (), quiet=not world.is_first
        )
        try:
            result = fit(
                config,
                data,
                world=world,
                checkpoint_dir=folder,
                on_epoch=progress.epoch_finished,
                on_step=progress.step_finished,
                provenance=provenance.as_tags() | {"space": request.space},
                accumulate=_pieces(arguments, repeats),
                compile_network=arguments.compile,
            )
        except KeyboardInterrupt:
            raise Interrupted(_how_to_go_on(folder)) from None
        finally:
            progress.close()
    if world.is_first:
        sizes = {"train_images": len(data.train.labels), "label": info.label, "sha256": info.sha256}
        run_folder.write_metrics(folder, result.epochs)
        findings = diagnose(result.epochs, classes=len(info.class_names))
        run_folder.write_record(
            folder, request, result, data=sizes, context=provenance.as_dict(), findings=findings
        )
        title = f"{request.space}: {config.model.name} on {info.label}, seed {config.seed}"
        run_folder.write_curves(folder, result.epochs, title=title)
        for finding in findings:
            _say(str(finding))
        _print_result(result, folder)
    return 0


def _pieces(arguments: Arguments, repeats: Repeats | None) -> int:
    if arguments.accumulate is not None:
        return arguments.accumulate
    return 1 if repeats is None else repeats.accumulate


def _run_alike(repeats: Repeats) -> None:
    """Use as many workers and threads as the trial had: sums of floats depend on both.

    Raises:
        UsageError: this command was started with another number of workers.
    """
    import torch

    workers = int(os.environ.get("WORLD_SIZE", "1"))
    if workers != repeats.workers:
        started = (
            "python" if repeats.workers == 1 else f"torchrun --standalone --nproc_per_node={repeats.workers}"
        )
        raise UsageError(
            f"trial {repeats.trial_id} had {repeats.workers} worker(s), and this command has {workers}; "
            f"start it with: {started} -m platform.train --trial {repeats.sweep} {repeats.trial_id}"
        )
    torch.set_num_threads(repeats.threads)


def _path_of_data(request: RunRequest, world: World) -> str:
    """Return the data's folder in the cache; the first worker converts, the others wait for it."""
    from platform.data.catalog import prepare

    found: str | UserError = ""
    if world.is_first:
        try:
            directory = Path(request.data_dir) if request.data_dir else None
            repeats = request.repeats
            if repeats is not None and Path(repeats.data_path).is_dir():
                found = repeats.data_path
            else:
                info = prepare(request.config.data, data_dir=directory, progress=_say)
                found = str(info.path)
                _refuse_other_data(repeats, info)
        except UserError as error:
            found = error
    found = world.share_from_first(found)
    if isinstance(found, UserError):
        raise found
    return found


def _refuse_other_data(repeats: Repeats | None, info: DatasetInfo) -> None:
    if repeats is not None and repeats.data_sha256 not in ("", info.sha256):
        raise UserError(
            f"trial {repeats.trial_id} of {repeats.sweep} was trained on other images (sha256 "
            f"{repeats.data_sha256[:12]}) than those found ({info.label}, {info.sha256[:12]}); "
            "give the right ones with --data-dir"
        )


def _say_what(config: RunConfig, info: DatasetInfo, world: World, images: int) -> None:
    """Say aloud what was detected, and why."""
    import torch

    from platform.training.acceleration.precision import choose

    precision, reason = choose(config.precision, world.device)
    where = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    threads = "" if world.device.type == "cuda" else f", {torch.get_num_threads()} threads each"
    _say(f"{config.model.name} on {info.label}: {images:,} training images", world.is_first)
    _say(
        f"{world.size} worker{'s' * (world.size > 1)} on {where}{threads}, {precision} ({reason}), "
        f"batch size {config.batch_size}, {config.optimizer.name}, {config.schedule.name}",
        world.is_first,
    )


def _print_result(result: RunResult, folder: Path) -> None:
    """Print the result on stdout."""
    from platform.tracking.text_format import plural

    last = result.epochs[-1]
    if result.validation_accuracy is not None:
        best = " (best epoch)" if result.validation_accuracy != last.validation_accuracy else ""
        length = plural(last.epoch, "epoch")
        print(f"validation accuracy {100 * result.validation_accuracy:.2f} %{best} after {length}")
    print(f"train loss {result.train_loss:.4f}")
    if result.compile_s is not None:
        print(f"compiled in {result.compile_s:.1f} s")
    print(f"run {folder}")
    _say(f"next: python -m platform.evaluate {folder} --split test")


def _how_to_go_on(folder: Path) -> str:
    from platform.training.checkpoint import read_records

    epochs = len(read_records(folder))
    kept = f"epoch {epochs} is saved" if epochs else "no epoch was finished, the run will begin anew"
    return f"\nstopped; {kept}. Go on with:\n  {_launcher()} --resume {shlex.quote(str(folder))}"


def _launcher() -> str:
    workers = os.environ.get("WORLD_SIZE", "1")
    if workers == "1":
        return "python -m platform.train"
    return f"torchrun --standalone --nproc_per_node={workers} -m platform.train"


def _say(message: str, aloud: bool = True) -> None:
    if aloud:
        print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
