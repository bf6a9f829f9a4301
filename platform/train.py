"""Train one configuration, the base of a search space or a recipe, without Ray and MLflow.

    python -m platform.train resnet32_cifar
    python -m platform.train resnet32_cifar --set epochs=10 optimizer.lr=0.05 --output runs/short
    python -m platform.train --resume runs/short
    python -m platform.train resnet18_cifar --compile --accumulate 2
    python -m platform.train --trial resnet32_cifar-20260101-120000 t007     # repeat a trial of a sweep
    torchrun --standalone --nproc_per_node=2 -m platform.train resnet32_cifar

Progress is printed to stderr, the result to stdout. The folder of the run contains metrics.csv, curves.svg,
record.json, last.pt (for --resume) and model.pt (for platform.evaluate, platform.predict, deploy.export).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from platform.common.command_line import DataDir, Flag, option, parse_command_line, require_local
from platform.common.errors import Interrupted, UsageError, UserError, run_command
from platform.common.text_format import percent, plural
from platform.space.space_files import load_run
from platform.training import run_folder
from platform.training.config import RunConfig
from platform.training.inputs.budget import budget_of
from platform.training.run_folder import LAST, RepeatedTrial, RunRequest
from platform.training.torchrun import read_launch
from platform.tuning.execution.interrupts import end_signals_as_sigint

if TYPE_CHECKING:
    from platform.data.dataset import DatasetInfo
    from platform.training.distributed import World
    from platform.training.records import RunResult


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train one configuration: the base of a search space, or a recipe."""

    space: Annotated[str | None, tyro.conf.Positional, option("[SPACE]")] = None
    """Name of a search space or recipe in search_spaces/, or path of a .yaml file."""
    settings: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, option("KEY=VALUE ...", name="set")
    ] = ()
    """Override settings of the run: epochs=10 optimizer.lr=0.05 ... (repeatable)"""
    data_dir: DataDir = None
    """Folder of the dataset."""
    output: Annotated[Path | None, option("PATH", default="runs/train-SPACE-TIME")] = None
    """Folder of the run."""
    resume: Annotated[Path | None, option("PATH")] = None
    """Continue the run in this folder, instead of SPACE."""
    seed: Annotated[int | None, option("N", default="the seed of the space")] = None
    """Seed of initialization, data order and augmentation."""
    accumulate: Annotated[int | None, option("N", default="1, or the trial's with --trial")] = None
    """Gradient accumulation: number of micro-batches per worker and step."""
    compile: Flag = False
    """Compile the network with torch.compile."""
    trial: Annotated[tuple[str, str] | None, option("SWEEP TRIAL")] = None
    """Repeat a trial of a sweep exactly, instead of SPACE: the sweep's folder or id, and the trial's id."""


def main(words: Sequence[str] | None = None, *, prog: str = "python -m platform.train") -> int:
    """Run the command."""
    arguments = parse_command_line(Arguments, prog=prog, words=words)
    first = read_launch().rank == 0
    try:
        require_local(arguments.output, "--output")
        request, folder = _request(arguments)
        with end_signals_as_sigint():
            return _train(request, folder, arguments, first=first)
    except UserError as error:
        if first:
            raise
        # Every worker raises the same error; only the first one prints it.
        return error.exit_code


def _request(arguments: Arguments) -> tuple[RunRequest, Path]:
    if arguments.resume:
        request, folder = _resumed_run(arguments, arguments.resume)
    elif arguments.trial:
        request, folder = _repeated_trial(arguments, *arguments.trial)
    else:
        request, folder = _new_run(arguments)
    if arguments.data_dir:
        request = request.model_copy(update={"data_dir": str(arguments.data_dir.absolute())})
    return request, folder


def _repeated_trial(arguments: Arguments, sweep_name: str, trial_id: str) -> tuple[RunRequest, Path]:
    from platform.tracking.sweep_folder import find_sweep
    from platform.tuning.journal.trial_model import find_task

    if arguments.space or arguments.settings or arguments.seed is not None:
        raise UsageError("--trial repeats a trial unchanged: remove SPACE, --set and --seed")
    sweep = find_sweep(sweep_name, root=Path("runs"))
    task = find_task(sweep, trial_id)
    repeats = RepeatedTrial(
        sweep=sweep.sweep_id,
        trial_id=task.trial_id,
        data_path=task.data_path,
        data_sha256=task.provenance.get("data_sha256", ""),
        final=task.final,
        workers=task.workers,
        threads=task.threads,
        accumulate=task.accumulate,
    )
    request = RunRequest(space=sweep.space, config=task.run, repeats=repeats)
    return request, _new_folder(arguments, f"{sweep.sweep_id}-{task.trial_id}")


def _new_folder(arguments: Arguments, name: str) -> Path:
    # Every worker computes a name; that of the first one is used.
    own = f"train-{name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005
    folder = arguments.output or Path("runs") / own
    if (folder / LAST).exists():
        raise UsageError(
            f"{folder} already contains a run: continue it with --resume {shlex.quote(str(folder))}, "
            "or give another --output"
        )
    return folder


def _new_run(arguments: Arguments) -> tuple[RunRequest, Path]:
    if arguments.space is None:
        raise UsageError("give a search space or recipe: python -m platform.train SPACE (or --resume PATH)")
    settings = [text for group in arguments.settings for text in group]
    if arguments.seed is not None:
        settings.append(f"seed={arguments.seed}")
    overrides = [text if text.startswith("base.") else f"base.{text}" for text in settings]
    request = RunRequest(space=arguments.space, config=load_run(arguments.space, overrides=overrides))
    return request, _new_folder(arguments, Path(arguments.space).stem)


def _resumed_run(arguments: Arguments, folder: Path) -> tuple[RunRequest, Path]:
    others = (arguments.space, arguments.settings, arguments.output, arguments.trial)
    if any(others) or arguments.seed is not None:
        raise UsageError(
            "--resume continues a run unchanged: remove SPACE, --set, --seed, --trial and --output"
        )
    return run_folder.read_request(folder), folder


def _train(request: RunRequest, folder: Path, arguments: Arguments, *, first: bool) -> int:
    budget_of(request.config, images=1, workers=read_launch().workers)
    say = _say if first else lambda _message: None
    say("loading PyTorch")
    from platform.data.catalog import open_info
    from platform.data.training_data import load_training_data
    from platform.tracking.provenance import collect
    from platform.training.checkpoint import read_records
    from platform.training.diagnostics.diagnose import diagnose
    from platform.training.distributed import world_from_env
    from platform.training.loop import fit
    from platform.training.progress import Progress

    config, repeats, accumulate = request.config, request.repeats, arguments.accumulate
    if accumulate is None:
        accumulate = repeats.accumulate if repeats is not None else 1
    if repeats is not None:
        _match_trial_parallelism(repeats)
    with world_from_env() as world:
        folder = Path(world.broadcast_from_first(str(folder)))
        # The first worker converts the dataset, the others wait.
        info = open_info(world.call_on_first(partial(_dataset_path, request)))
        data = load_training_data(config.data, info, final=repeats is not None and repeats.final, notify=say)
        if first:
            _print_setup(config, info, world, len(data.train))
        if arguments.compile:
            say("compiling the network (this takes a while)")
        provenance = collect()
        before = request.workers or world.size
        if before != world.size and not config.sync_batch_norm:
            say(
                f"note: this run began with {plural(before, 'worker')} and continues with {world.size}. Each "
                "worker normalizes its own part of a batch, so the results differ from those of an "
                "uninterrupted run (unless sync_batch_norm is set)"
            )
        if first:
            run_folder.write_request(folder, request.model_copy(update={"workers": before}))
        progress = Progress(folder, finished=read_records(folder) if first else (), quiet=not first)
        try:
            result = fit(
                config,
                data,
                world=world,
                checkpoint_dir=folder,
                on_epoch=progress.epoch_finished,
                on_step=progress.step_finished,
                provenance=provenance.as_tags() | {"space": request.space},
                accumulate=accumulate,
                compile_network=arguments.compile,
            )
        except KeyboardInterrupt:
            raise Interrupted(_resume_message(folder)) from None
        finally:
            progress.clear()
    if first:
        sizes = {
            "train_images": len(data.train),
            "classes": len(info.class_names),
            "label": info.label,
            "sha256": info.sha256,
        }
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


def _match_trial_parallelism(repeats: RepeatedTrial) -> None:
    """Set the trial's number of threads and check the number of workers: floating-point sums depend on both.

    Raises:
        UsageError: the command was started with another number of workers.
    """
    import torch

    workers = read_launch().workers
    if workers != repeats.workers:
        raise UsageError(
            f"trial {repeats.trial_id} ran on {plural(repeats.workers, 'worker')}, this run has {workers}; "
            f"start it with: {_launcher(repeats.workers)} --trial {repeats.sweep} {repeats.trial_id}"
        )
    torch.set_num_threads(repeats.threads)


def _dataset_path(request: RunRequest) -> Path:
    """Return the dataset's folder in the cache, converting the dataset on first use."""
    from platform.data.catalog import prepare_dataset

    repeats = request.repeats
    if repeats is not None and Path(repeats.data_path).is_dir():
        return Path(repeats.data_path)
    directory = Path(request.data_dir) if request.data_dir else None
    info = prepare_dataset(request.config.data, data_dir=directory, progress=_say)
    if repeats is not None and repeats.data_sha256 not in ("", info.sha256):
        raise UserError(
            f"trial {repeats.trial_id} of {repeats.sweep} needs the dataset it was trained on (sha256 "
            f"{repeats.data_sha256[:12]}), but found {info.label} ({info.sha256[:12]}); "
            "give the original dataset with --data-dir"
        )
    return info.path


def _print_setup(config: RunConfig, info: DatasetInfo, world: World, images: int) -> None:
    """Print the dataset, the device, the precision with its reason, and the main settings."""
    import torch

    from platform.training.acceleration.precision import choose_precision

    precision, reason = choose_precision(config.precision, world.device)
    on_gpu = world.device.type == "cuda"
    device = torch.cuda.get_device_name(world.device) if on_gpu else "CPU"
    threads = "" if on_gpu else f", {plural(torch.get_num_threads(), 'thread')} each"
    _say(f"{config.model.name} on {info.label}: {images:,} training images")
    _say(
        f"{plural(world.size, 'worker')} on {device}{threads}, {precision} ({reason}), "
        f"batch size {config.batch_size}, {config.optimizer.name}, {config.schedule.name}"
    )


def _print_result(result: RunResult, folder: Path) -> None:
    last = result.epochs[-1]
    if result.validation_accuracy is not None:
        best = " (best epoch)" if result.validation_accuracy != last.validation_accuracy else ""
        length = plural(last.epoch, "epoch")
        print(f"validation accuracy {percent(result.validation_accuracy)}{best} after {length}")
    print(f"train loss {result.train_loss:.4f}")
    if result.compile_s is not None:
        print(f"compiled in {result.compile_s:.1f} s")
    print(f"run {folder}")
    _say(f"next: python -m platform.evaluate {shlex.quote(str(folder))} --split test")


def _resume_message(folder: Path) -> str:
    from platform.training.checkpoint import read_records

    epochs = len(read_records(folder))
    saved = (
        f"epoch {epochs} is saved" if epochs else "no epoch is finished, so the run will start from scratch"
    )
    command = f"{_launcher(read_launch().workers)} --resume {shlex.quote(str(folder))}"
    return f"\ninterrupted; {saved}. Resume with:\n  {command}"


def _launcher(workers: int) -> str:
    program = "python" if workers == 1 else f"torchrun --standalone --nproc_per_node={workers}"
    return f"{program} -m platform.train"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)
