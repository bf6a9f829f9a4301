"""What trials are compared by beside their accuracy: the costs of their networks, measured once for each.

The networks of a space are few and known before the first trial, so they are all measured then, on a machine
that trains nothing yet. The figures are kept in `architectures.json` of the sweep's folder: a resumed sweep
compares by the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from platform.atomic import read_json, write_text
from platform.data.dataset import DatasetInfo
from platform.errors import UserError
from platform.models.config import ModelConfig
from platform.schema import Frozen, validate
from platform.space.distributions import SearchTree, apply_settings, walk_tree
from platform.space.settings import Objective
from platform.space.spec import SweepSpec, changes_network
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.sampling.sampler import combinations

FILE = "architectures.json"
ACCURACY: Objective = "validation_accuracy"

Latency = Callable[[ModelConfig], float]
"""Measures one image's median latency in ncnn on this machine, in milliseconds, one thread."""


class Architecture(Frozen):
    """A network and what it costs."""

    model: ModelConfig
    costs: Mapping[Objective, float]


class Architectures(Frozen):
    """The content of architectures.json."""

    architectures: tuple[Architecture, ...]

    def costs(self, run: RunConfig) -> dict[Objective, float]:
        """Return the costs of a run's network, by objective.

        Raises:
            UserError: it was not measured.
        """
        wanted = network_of(run.model)
        for known in self.architectures:
            if known.model == wanted:
                return dict(known.costs)
        raise UserError(
            f"the costs of {wanted.name} are not in {FILE}; remove that file to measure all networks again"
        )


def costs_wanted(spec: SweepSpec) -> tuple[Objective, ...]:
    """Return the objectives of a space that are costs; none in most spaces."""
    return tuple(name for name in spec.objectives if name != ACCURACY)


def network_of(model: ModelConfig) -> ModelConfig:
    """Return the same for all models that are built alike: how weights begin costs nothing."""
    return model.model_copy(update={"zero_init_residual": False})


def networks(spec: SweepSpec) -> list[ModelConfig]:
    """Return every distinct network that the space can draw, in the file's order."""
    tree = SearchTree(tuple(entry for entry in spec.search.entries if changes_network(entry.path)))
    base = {"model": spec.base.model.model_dump()}
    found = []
    for params in combinations(tree):
        drawn = walk_tree(tree, lambda dimension, params=params: params[dimension.name])  # type: ignore[misc]
        found.append(network_of(ModelConfig.model_validate(apply_settings(base, drawn.settings)["model"])))
    return list(dict.fromkeys(found))


def measure_architectures(
    spec: SweepSpec,
    folder: SweepFolder,
    info: DatasetInfo,
    *,
    latency_ms: Latency,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure every network of the space and write architectures.json, unless it is there already.

    Args:
        spec: the space; one without costs among its objectives measures nothing.
        folder: the sweep's.
        info: its data set, which gives the size of an image and the number of classes.
        latency_ms: is called for `latency_ms` only.
        progress: told, in words, what takes a while.

    Raises:
        UserError: a network could not be exported or timed.
    """
    path, wanted = folder.path / FILE, costs_wanted(spec)
    if not wanted or path.exists():
        return
    from platform.models.costs import count_multiply_accumulates, count_parameters

    classes = len(info.class_names)
    measured: list[Architecture] = []
    for model in (models := networks(spec)):
        progress(f"measuring {model.name}, network {len(measured) + 1} of {len(models)}")
        costs: dict[Objective, float] = {}
        for name in wanted:
            if name == "parameters":
                costs[name] = count_parameters(model, num_classes=classes)
            elif name == "multiply_accumulates":
                costs[name] = count_multiply_accumulates(
                    model, num_classes=classes, input_shape=info.image_shape
                )
            else:
                costs[name] = latency_ms(model)
        measured.append(Architecture(model=model, costs=costs))
    document = Architectures(architectures=tuple(measured))
    write_text(path, document.model_dump_json(indent=2) + "\n")


def read_architectures(folder: SweepFolder) -> Architectures:
    """Return what was measured; nothing where there are no costs among the objectives.

    Raises:
        UserError: the file is damaged.
    """
    path = folder.path / FILE
    if not path.exists():
        return Architectures(architectures=())
    content = read_json(path, remedy="remove it to measure all networks again")
    return validate(Architectures, content, source=str(path))
