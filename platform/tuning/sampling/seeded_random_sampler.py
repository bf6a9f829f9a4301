"""A random sampler whose draws depend only on the seed, the trial number and the parameter name."""

from __future__ import annotations

import hashlib
from typing import Any

import optuna
from typing_extensions import override


class SeededRandomSampler(optuna.samplers.RandomSampler):
    """Draws each parameter with its own generator.

    A generator shared by all draws would be in another state after a resume, because replayed trials draw
    nothing.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    @override
    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        digest = hashlib.sha256(f"{self._seed}:{trial.number}:{param_name}".encode()).digest()
        own = optuna.samplers.RandomSampler(seed=int.from_bytes(digest[:4], "big"))
        return own.sample_independent(study, trial, param_name, param_distribution)
