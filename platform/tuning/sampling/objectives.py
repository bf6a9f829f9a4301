"""Secondary objectives (parameters, multiply-accumulates, latency), measured once per architecture.

A space has few architectures. All of them are measured before the first trial, while the machine is idle. The
results are stored in `architectures.json` in the sweep's folder, and a resumed sweep uses them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from platform.common.atomic import read_json, write_text
from platform.common.errors import UserError
from platform.common.schema import Frozen, validate
from platform.data.dataset import DatasetInfo
from platform.models.config import ModelConfig
from platform.space.distributions import SearchTree, apply_settings
from platform.space.settings import Objective
from platform.space.spec import SweepSpec, changes_network
from platform.tracking.sweep_folder import SweepFolder
from platform.training.config import RunConfig
from platform.tuning.sampling.sampler import combinations

FILE = "architectures.json"
ACCURACY: Objective = "validation_accuracy"


class Architecture(Frozen):
    """A network and its costs."""

    model: ModelConfig
    costs: Mapping[Objective, float]


class Architectures(Frozen):
    """The content of architectures.json."""

    architectures: tuple[Architecture, ...]

    def costs(self, run: RunConfig) -> dict[str, float]:
        """Return the costs of a run's network, by objective.

        Raises:
            UserError: the network was not measured.
        """
        wanted = cost_relevant(run.model)
        for known in self.architectures:
            if known.model == wanted:
                return {str(name): cost for name, cost in known.costs.items()}
        raise UserError(
            f"the costs of {wanted.name} are not in {FILE}; remove that file to measure all networks again"
        )


def cost_objectives(spec: SweepSpec) -> tuple[Objective, ...]:
    """Return the objectives of a space other than accuracy; most spaces have none."""
    return tuple(name for name in spec.objectives if name != ACCURACY)


def cost_relevant(model: ModelConfig) -> ModelConfig:
    """Return the model with the default of the setting that does not change its costs."""
    return model.model_copy(update={"zero_init_residual": False})


def networks(spec: SweepSpec) -> list[ModelConfig]:
    """Return every distinct network of the space, in the file's order."""
    tree = SearchTree(tuple(entry for entry in spec.search.entries if changes_network(entry.path)))
    base = {"model": spec.base.model.model_dump()}
    models = (apply_settings(base, chosen.settings)["model"] for chosen in combinations(tree))
    return list(dict.fromkeys(cost_relevant(ModelConfig.model_validate(model)) for model in models))


def measure_architectures(
    spec: SweepSpec,
    folder: SweepFolder,
    info: DatasetInfo,
    *,
    latency_ms: Callable[[ModelConfig], float],
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Measure every network of the space and write architectures.json, unless the file exists.

    Nothing is measured if accuracy is the only objective. `latency_ms` measures the median latency of one
    image in ncnn on this machine, with one thread; it is called only if latency is an objective.

    Raises:
        UserError: a network could not be exported or timed.
    """
    path, wanted = folder.path / FILE, cost_objectives(spec)
    if not wanted or path.exists():
        return
    from platform.models.costs import count_multiply_accumulates, count_parameters

    classes = len(info.class_names)
    measure: dict[Objective, Callable[[ModelConfig], float]] = {
        "parameters": partial(count_parameters, num_classes=classes),
        "multiply_accumulates": partial(
            count_multiply_accumulates, num_classes=classes, input_shape=info.image_shape
        ),
        "latency_ms": latency_ms,
    }
    measured: list[Architecture] = []
    for model in (models := networks(spec)):
        progress(f"measuring {model.name}, network {len(measured) + 1} of {len(models)}")
        measured.append(Architecture(model=model, costs={name: measure[name](model) for name in wanted}))
    document = Architectures(architectures=tuple(measured))
    write_text(path, document.model_dump_json(indent=2) + "\n")


def read_architectures(folder: SweepFolder) -> Architectures:
    """Return the measured networks; none if accuracy is the only objective.

    Raises:
        UserError: the file is damaged.
    """
    path = folder.path / FILE
    if not path.exists():
        return Architectures(architectures=())
    content = read_json(path, remedy="remove it to measure all networks again")
    return validate(Architectures, content, source=str(path))
