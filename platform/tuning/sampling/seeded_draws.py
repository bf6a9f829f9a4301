"""Independent draws without a memory: what is drawn depends on the seed, the trial and the setting alone."""

from __future__ import annotations

import hashlib
from typing import Any

import optuna
from typing_extensions import override


class NamedDraws(optuna.samplers.RandomSampler):
    """Draws each setting from a generator of its own.

    A generator shared by all draws would stand elsewhere after a resume: trials whose settings are known
    draw nothing.
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
