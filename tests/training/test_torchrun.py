"""The variables of torchrun in the environment of a run."""

import pytest

from platform.common.errors import UsageError
from platform.training.torchrun import Launch, read_launch

MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        ({}, Launch()),
        ({"WORLD_SIZE": "", "RANK": " "}, Launch()),
        ({"WORLD_SIZE": "1", "RANK": "0"}, Launch()),
        ({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", **MASTER}, Launch(4, 3, 1)),
    ],
)
def test_the_launch_is_read(environment: dict[str, str], launch: Launch) -> None:
    assert read_launch(environment) == launch


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0"),
        ({"WORLD_SIZE": "-2", "RANK": "0", "LOCAL_RANK": "0"}, "WORLD_SIZE is -2"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
        ({"WORLD_SIZE": "2", **MASTER}, "RANK is missing"),
        ({"WORLD_SIZE": "2", "RANK": "0", **MASTER}, "LOCAL_RANK is missing"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, "MASTER_ADDR is missing"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0", **MASTER}, "RANK 2"),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "1", **MASTER}, "LOCAL_RANK 1"),
        ({"RANK": "1"}, "RANK 1"),
    ],
)
def test_an_incomplete_environment_is_one_message(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        read_launch(environment)
    assert "start several workers with torchrun" in str(caught.value)
