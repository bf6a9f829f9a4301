"""The bridge holds where Ray starts processes: in a task, and in a worker of Ray Train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from platform.tuning.execution.cluster_session import project_root, session

pytestmark = [
    pytest.mark.timeout(1800),
    # Ray's own default settings use names that Ray has deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    with session(num_cpus=1):
        yield


def both_modules() -> dict[str, str]:
    """Return what this process's `platform` is: our package, and the standard library's answers."""
    import platform
    import platform.errors

    return {
        "package": str(Path(platform.__path__[0])),
        "exit_code": str(platform.errors.UsageError.exit_code),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def test_in_a_task() -> None:
    assert ray.get(ray.remote(both_modules).remote()) == both_modules()
    assert both_modules()["package"] == str(project_root() / "platform")


def train_loop(config: dict[str, Any]) -> None:
    import ray.train

    from platform.tuning.journal.trial import TrialTask  # what the real workers import by name

    assert TrialTask.__module__ == "platform.tuning.journal.trial"
    config["answers"].put.remote(both_modules())
    ray.train.report({})


@ray.remote(num_cpus=0)
class Answers:
    """Where the worker leaves its answer: Train keeps only metrics that come with a checkpoint."""

    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []

    def put(self, answer: dict[str, str]) -> None:
        self.got.append(answer)

    def all(self) -> list[dict[str, str]]:
        return self.got


def test_in_a_worker_of_ray_train(tmp_path: Path) -> None:
    from ray.train.v2.api.config import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    answers = Answers.remote()
    DataParallelTrainer(
        train_loop,
        train_loop_config={"answers": answers},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="bridge", storage_path=str(tmp_path)),
    ).fit()
    assert ray.get(answers.all.remote()) == [both_modules()]
