import subprocess
import sys
from pathlib import Path

import pytest

from platform.common.errors import UsageError
from platform.space.space_files import load_run, load_space, load_spec
from platform.space.spec import SweepSpec, changed_fields, trial_seed
from tests.space.examples import EVERY_KIND, PLAIN, spec

SPACE = """\
about: a test
base:
  model: {name: resnet32_cifar}
  epochs: 9
  optimizer: {name: sgd, lr: 1e-1}
  schedule: {name: cosine}
search:
  augment: {cutout: {length: {choice: [0, 8]}}}
  optimizer.lr: {log_uniform: [1e-2, 5e-1]}
  schedule: [{name: cosine}, {name: linear}]
scheduler: {name: none}
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "search_spaces" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(SPACE)
    return path


def messages(*arguments: object, **named: object) -> list[str]:
    with pytest.raises(UsageError) as caught:
        load_space(*arguments, **named)  # type: ignore[arg-type]
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", ["resnet18_cifar", "resnet32_cifar"])
def test_the_projects_spaces_are_valid_and_state_their_question(name: str) -> None:
    loaded = load_space(name)
    assert loaded.name == loaded.base.model.name == name
    assert loaded.about.endswith("?")
    assert loaded.start_from


def test_the_first_starting_point_of_each_space_is_its_base() -> None:
    for name in ("resnet18_cifar", "resnet32_cifar"):
        loaded = load_space(name)
        first = loaded.resolve(loaded.start_from[0])
        assert first == loaded.base


def test_a_space_is_found_by_name_in_the_working_directory_first(space: Path) -> None:
    assert load_space("tiny").about == "a test"
    assert load_space("tiny") == load_space("search_spaces/tiny.yaml") == load_space(str(space))
    (space.parent / "resnet18_cifar.yaml").write_text(SPACE)
    assert load_space("resnet18_cifar").about == "a test"


def test_a_misspelled_name_gets_a_suggestion_and_the_available_names() -> None:
    (message,) = messages("resnet18_cfar")
    assert "did you mean 'resnet18_cifar'?" in message
    assert "resnet32_cifar" in message


@pytest.mark.parametrize("path", ["nowhere/x.yaml", "x.yaml", "nowhere/x"])
def test_a_missing_file_is_reported(path: str) -> None:
    assert messages(path) == [f"no such search space file: {path}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "cannot be read as text"),
        (b"- 1", "must contain sections"),
        (b"", "must contain sections"),
    ],
)
def test_a_file_that_is_not_a_space_is_refused(space: Path, content: bytes, message: str) -> None:
    space.write_bytes(content)
    (line,) = messages("tiny")
    assert message in line
    assert line.startswith("search_spaces/tiny.yaml: ")


def test_all_errors_of_a_file_are_reported_at_once_with_their_paths(space: Path) -> None:
    text = SPACE.replace("lr: 1e-1}", "lr: 0.1, nesterow: true}")
    text = text.replace("{choice: [0, 8]}", "{choices: [0, 8]}") + "trails: 3\n"
    space.write_text(text)
    lines = messages("tiny")
    assert len(lines) == 3
    start = "search_spaces/tiny.yaml: "
    assert lines[0] == f"{start}base.optimizer.nesterow: unknown key (did you mean 'nesterov'?)"
    assert lines[1].startswith(
        f"{start}search.augment.cutout.length: unknown distribution 'choices' (did you mean 'choice'?)"
    )
    assert lines[2] == f"{start}trails: unknown key (did you mean 'trials'?)"


def test_a_recipe_loads_as_a_run_but_not_as_a_space(space: Path) -> None:
    recipe = space.with_name("recipe.yaml")
    recipe.write_text(SPACE.split("search:", maxsplit=1)[0])
    assert load_run("recipe") == load_space("tiny").base
    (line,) = messages("recipe")
    assert "needs a 'search' section" in line
    assert "python -m platform.train recipe" in line
    assert load_run("recipe", overrides=["base.epochs=3"]).epochs == 3


@pytest.mark.parametrize(
    ("extra", "message"),
    [("trials: 3\n", "recipe.yaml: trials: a file without"), ("", "recipe.yaml: base.optimizer.lr: ")],
)
def test_an_invalid_recipe_is_refused(space: Path, extra: str, message: str) -> None:
    recipe = space.with_name("recipe.yaml")
    recipe.write_text(
        SPACE.split("search:", maxsplit=1)[0].replace("1e-1", "1e-1" if extra else "-1") + extra
    )
    with pytest.raises(UsageError) as caught:
        load_run("recipe")
    assert message in str(caught.value)


def test_load_run_returns_the_base_of_a_space(space: Path) -> None:
    assert load_run("tiny") == load_space("tiny").base


def test_overrides_of_a_single_run_are_not_checked_against_the_scheduler():
    assert load_space("resnet18_cifar").scheduler.grace_epochs > 1
    assert load_run("resnet18_cifar", overrides=["base.epochs=1"]).epochs == 1


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("trials=12", "trials", 12),
        ("base.epochs=6", "base.epochs", 6),
        ("base.optimizer.lr=2e-2", "base.optimizer.lr", 0.02),
        ("scheduler={name: asha, grace_epochs: 2}", "scheduler.grace_epochs", 2),
        ("confirm.seeds=5", "confirm.seeds", 5),
        ("resources_per_worker.GPU=0.25", "resources_per_worker.GPU", 0.25),
        ("search.batch_size={choice: [64]}", "search.batch_size.choice", [64]),
        ("search.augment.cutout.length={choice: [4]}", "search.augment.cutout.length.choice", None),
    ],
)
def test_an_override_changes_one_setting(space: Path, override: str, path: str, value: object) -> None:
    found: object = load_space("tiny", overrides=[override]).to_dict()
    if value is None:  # nested in the file, dotted in the spec
        assert isinstance(found, dict)
        assert found["search"]["augment.cutout.length"] == {"choice": [4]}
        return
    for part in path.split("."):
        assert isinstance(found, dict)
        found = found[part]
    assert found == value


def test_an_override_of_a_missing_section_keeps_its_other_defaults(space: Path) -> None:
    space.write_text(SPACE.replace("scheduler: {name: none}\n", ""))
    scheduler = load_space("tiny", overrides=["scheduler.grace_epochs=2"]).scheduler
    assert (scheduler.name, scheduler.model_dump()["grace_epochs"]) == ("asha", 2)


def test_null_removes_a_setting_from_the_search(space: Path) -> None:
    names = [
        dimension.name for dimension in load_space("tiny", overrides=["search.schedule=null"]).dimensions
    ]
    assert names == ["augment.cutout.length", "optimizer.lr"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trails=12", "--set trails=12: unknown setting 'trails' (did you mean 'trials'?)"),
        ("base.epoch=6", "did you mean 'epochs'?"),
        ("base.optimizer.momentun=0.5", "did you mean 'momentum'?"),
        ("trials.x=1", "trials has no subsettings"),
        ("search.batchsize={choice: [64]}", "did you mean 'batch_size'?"),
        (
            "search.schedule.name=cosine",
            "'search.schedule' is a list of alternatives; replace the whole list",
        ),
        ("search.batch_size=null", "'batch_size' is not in the search section"),
        ("trials", "an override must be PATH=VALUE"),
        ("trials=[1", "--set trials:"),
        ("trials=0", "trials: Input should be greater than 0"),
    ],
)
def test_an_invalid_override_is_refused(space: Path, override: str, message: str) -> None:
    assert message in "\n".join(messages("tiny", overrides=[override]))


@pytest.mark.parametrize("document", [PLAIN, EVERY_KIND])
def test_a_spec_round_trips_through_yaml_and_json(document: dict[str, object], tmp_path: Path) -> None:
    before = spec(document)
    (tmp_path / "spec.yaml").write_text(before.to_yaml())
    for after in (load_spec(tmp_path), SweepSpec.model_validate_json(before.model_dump_json())):
        assert after == before
        assert after.digest() == before.digest()
        assert hash(after) == hash(before)
        assert changed_fields(before, after) == []


def test_a_folder_without_a_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"spec\.yaml is missing"):
        load_spec(tmp_path)


def test_changed_fields_returns_dotted_names() -> None:
    search = {**PLAIN["search"], "optimizer.lr": {"log_uniform": [0.01, 0.4]}, "epochs": {"choice": [3, 9]}}
    base = {**PLAIN["base"], "epochs": 8}
    after = spec(PLAIN, search=search, base=base, trials=50)
    assert changed_fields(spec(), after) == [
        "base.epochs",
        "search.optimizer.lr.log_uniform[1]",
        "search.epochs",
        "trials",
    ]


def test_trial_seeds_are_reproducible_and_distinct_across_stages_and_sweeps() -> None:
    assert trial_seed(spec(), 7) == 1301743230
    seeds = [
        trial_seed(spec(PLAIN, seed=sweep), number, stage=stage)
        for sweep in (0, 1)
        for stage in ("search", "confirm")
        for number in range(50)
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_validation_imports_no_heavy_library() -> None:
    program = (
        "import sys\n"
        "from platform.common.errors import UsageError\n"
        "from platform.space.space_files import load_space\n"
        "load_space('resnet18_cifar')\n"
        "try:\n"
        "    load_space('resnet18_cifar', overrides=['base.optimizer.name=sdg'])\n"
        "except UsageError as error:\n"
        "    assert 'did you mean' in str(error), error\n"
        "else:\n"
        "    raise AssertionError('not refused')\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'numpy', 'pyarrow', 'torchvision', 'scipy', 'pandas'}\n"
        "print(*sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr


@pytest.mark.parametrize(
    ("file", "name"),
    [("my space.yaml", "my_space"), ("größe.yaml", "gr_e"), ("_x-.yaml", "x"), ("..yaml", "space")],
)
def test_a_space_without_a_name_has_that_of_its_file(space: Path, file: str, name: str) -> None:
    assert load_space(str(space.rename(space.with_name(file)))).name == name


def test_a_huge_file_is_not_read(space: Path) -> None:
    with space.open("ab") as file:
        file.truncate(2**40)  # sparse
    (message,) = messages("tiny")
    assert "may have at most 16,777,216 bytes" in message
