"""Rebuild the Optuna study of a search in memory from the sweep's tables, for Optuna's charts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from platform.common.errors import UserError
from platform.common.text_format import short_name
from platform.space.distributions import Dimension, Range
from platform.space.space_files import load_spec
from platform.tracking.events import TrialStatus
from platform.tracking.parquet_tables import TrialRow
from platform.tracking.results import SweepResults

_STATES = {
    TrialStatus.FINISHED: TrialState.COMPLETE,
    TrialStatus.PRUNED: TrialState.PRUNED,
    TrialStatus.RUNNING: TrialState.RUNNING,
}


def searched_dimensions(results: SweepResults) -> tuple[Dimension, ...]:
    """Return the dimensions of the search space; empty if the folder has no readable spec.yaml."""
    try:
        return tuple(load_spec(results.folder.path).dimensions)
    except UserError:
        return ()


def search_study(
    results: SweepResults,
    rows: Sequence[TrialRow],
    *,
    costs: Sequence[str] = (),
    merged: bool = False,
) -> optuna.Study:
    """Return a study with one trial per row, in order; accuracies in percent, parameters with short names.

    Args:
        results: the sweep; without a readable spec.yaml, the trials have no parameters.
        rows: the runs to include.
        costs: costs that are added as objectives.
        merged: whether settings of several alternatives with one meaning (the learning rates of SGD and
            Adam) are one parameter.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [StudyDirection.MAXIMIZE, *(StudyDirection.MINIMIZE for _ in costs)]
    study = optuna.create_study(study_name=results.folder.sweep_id, directions=directions)
    parameters = _parameters(searched_dimensions(results), merged=merged)
    study.add_trials([_trial(row, parameters, costs) for row in rows])
    return study


def _trial(
    row: TrialRow, parameters: dict[str, tuple[str, BaseDistribution]], costs: Sequence[str]
) -> FrozenTrial:
    state = _STATES.get(row.status, TrialState.FAIL)
    if state is TrialState.COMPLETE and row.validation_accuracy is None:
        state = TrialState.FAIL
    known = {name: parameters[name] for name in row.params if name in parameters}
    trial = optuna.trial.create_trial(
        state=state,
        values=[row.validation_percent, *(row.costs[name] for name in costs)]
        if state is TrialState.COMPLETE
        else None,
        params={short: row.params[name] for name, (short, _) in known.items()},
        distributions=dict(known.values()),
    )
    trial.datetime_start = _local(row.started_at)
    if state.is_finished():
        trial.datetime_complete = _local(row.ended_at or row.started_at)
    return trial


def _parameters(dimensions: Sequence[Dimension], *, merged: bool) -> dict[str, tuple[str, BaseDistribution]]:
    """Return the short name and the distribution of each flat name."""
    parameters = {each.name: (short_name(each.name), _distribution([each])) for each in dimensions}
    if merged:
        by_path = attrgetter("path")
        for path, group in groupby(sorted(dimensions, key=by_path), key=by_path):
            same = list(group)
            kinds = {isinstance(each.node, Range) and (each.node.log, each.node.integral) for each in same}
            if len(kinds) == 1:
                parameters |= {each.name: (short_name(path), _distribution(same)) for each in same}
    return parameters


def _distribution(dimensions: Sequence[Dimension]) -> BaseDistribution:
    """Return a distribution that contains the values of all dimensions, which are of one kind."""
    ranges = [each.node for each in dimensions if isinstance(each.node, Range)]
    if not ranges:
        nodes = (each.node for each in dimensions if not isinstance(each.node, Range))
        return CategoricalDistribution(list(dict.fromkeys(label for node in nodes for label in node.labels)))
    low, high = min(each.low for each in ranges), max(each.high for each in ranges)
    if ranges[0].integral:
        return IntDistribution(int(low), int(high), log=ranges[0].log)
    return FloatDistribution(low, high, log=ranges[0].log)


def _local(moment: datetime) -> datetime:
    # Optuna compares these times with `datetime.now()`, which has no time zone.
    return moment.astimezone().replace(tzinfo=None)
