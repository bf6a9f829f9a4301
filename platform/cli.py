"""The command `resnet-sweep`: one sub-command per entry module.

resnet-sweep --help
resnet-sweep sweep resnet18_cifar --quick       # the same as: python -m platform.sweep resnet18_cifar --quick
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from platform.common.errors import UsageError, did_you_mean, run_command

COMMANDS = {
    "sweep": ("platform.sweep", "search, confirm, train the champion, export, benchmark, report"),
    "train": ("platform.train", "train one configuration"),
    "evaluate": ("platform.evaluate", "evaluate a trained model on the test or validation split"),
    "predict": ("platform.predict", "classify image files"),
    "diagnose": ("platform.diagnose", "what went wrong in a run, why, and what to try"),
    "report": ("platform.report", "write the HTML report of a sweep"),
    "ui": ("platform.ui", "compare the trials of the newest sweep in MLflow"),
    "cluster": (
        "platform.cluster",
        "run a sweep on several machines over ssh: check, up, sweep, fetch, down",
    ),
    "export": ("deploy.export", "export a trained model to ncnn"),
    "benchmark": ("deploy.benchmark", "measure the latency of exported models with the C++ engine"),
    "engine": ("deploy.engine_build.engine", "build the C++ engine"),
}
"""Module and description of each sub-command."""


def main(words: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        words: the arguments of the command; those of the process if None.

    Raises:
        UsageError: there is no such sub-command.
    """
    name, *rest = (sys.argv[1:] if words is None else words) or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise UsageError(f"no command {name!r}{did_you_mean(name, COMMANDS)}; the commands are: {known}")
    # Imported here, because the modules of other commands are slow to import.
    code: int = importlib.import_module(COMMANDS[name][0]).main(rest, prog=f"resnet-sweep {name}")
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: resnet-sweep COMMAND [ARGUMENTS]",
            "",
            "Distributed hyperparameter sweeps for CIFAR-10 ResNets.",
            "",
            "commands:",
            *lines,
            "",
            "resnet-sweep COMMAND --help describes a command.",
        ]
    )


def run() -> None:
    """Entry point of the installed command."""
    run_command(main)


if __name__ == "__main__":
    run()
