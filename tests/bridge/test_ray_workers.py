"""The package works as `platform` in Ray tasks and in workers of Ray Train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from platform.tuning.execution.cluster_session import project_root, session

pytestmark = [
    pytest.mark.timeout(1800),
    # Ray's default settings use names that Ray deprecated.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    with session(num_cpus=1):
        yield


def platform_facts() -> dict[str, str]:
    """Return the path of this process's `platform` package and some results of the standard functions."""
    import platform
    import platform.common.errors

    return {
        "package": str(Path(platform.__path__[0])),
        "exit_code": str(platform.common.errors.UsageError.exit_code),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def test_a_task_imports_the_package() -> None:
    assert ray.get(ray.remote(platform_facts).remote()) == platform_facts()
    assert platform_facts()["package"] == str(project_root() / "platform")


def train_loop(config: dict[str, Any]) -> None:
    import ray.train

    from platform.tuning.journal.trial import TrialTask  # as the workers of a sweep do

    assert TrialTask.__module__ == "platform.tuning.journal.trial"
    config["results"].put.remote(platform_facts())
    ray.train.report({})


@ray.remote(num_cpus=0)
class Results:
    """The workers' results; Ray Train itself keeps only metrics that come with a checkpoint."""

    def __init__(self) -> None:
        self.results: list[dict[str, str]] = []

    def put(self, result: dict[str, str]) -> None:
        self.results.append(result)

    def all(self) -> list[dict[str, str]]:
        return self.results


def test_a_worker_of_ray_train_imports_the_package(tmp_path: Path) -> None:
    from ray.train.v2.api.config import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    results = Results.remote()
    DataParallelTrainer(
        train_loop,
        train_loop_config={"results": results},
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="bridge", storage_path=str(tmp_path)),
    ).fit()
    assert ray.get(results.all.remote()) == [platform_facts()]
