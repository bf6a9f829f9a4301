"""Trained-model files: saving, loading, refusals, atomicity."""

import pickle
from pathlib import Path

import pytest
import torch

from platform.common.errors import UserError
from platform.models import trained
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import TrainedModel, load_trained_model, save_trained_model


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    torch.manual_seed(0)
    config = ModelConfig(name="resnet20_cifar")
    return TrainedModel(
        model=config,
        state_dict=build_network(config, num_classes=3).state_dict(),
        mean=torch.tensor([0.5, 0.4, 0.3]),
        std=torch.tensor([0.2, 0.25, 0.3]),
        class_names=("cat", "dog", "owl"),
        input_shape=(3, 32, 32),
        data_label="generated",
        provenance={"commit": "abc"},
        metrics={"test_accuracy": 0.5},
    )


@pytest.fixture
def path(model: TrainedModel, tmp_path: Path) -> Path:
    save_trained_model(tmp_path / "model.pt", model)
    return tmp_path / "model.pt"


def test_a_saved_model_loads_unchanged(model, path):
    loaded = load_trained_model(path)
    assert loaded.state_dict.keys() == model.state_dict.keys()
    assert all(torch.equal(loaded.state_dict[key], model.state_dict[key]) for key in model.state_dict)
    assert torch.equal(loaded.mean, model.mean)
    assert torch.equal(loaded.std, model.std)
    for name in ("model", "class_names", "input_shape", "data_label", "provenance", "metrics"):
        assert getattr(loaded, name) == getattr(model, name), name


def test_the_loaded_network_gives_the_same_logits(model, path):
    x = torch.randn(2, 3, 32, 32)
    network = load_trained_model(path).network()
    assert not network.training
    with torch.no_grad():
        assert torch.equal(network(x), model.network()(x))


def test_normalize_with_channel_mean_and_with_mean_image(model):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    by_channel = model.normalize(images)
    expected = (images[1, 2, 5, 7].item() / 255 - 0.3) / 0.3
    assert by_channel[1, 2, 5, 7].item() == pytest.approx(expected, abs=1e-6)
    image = model.mean[:, None, None].expand(3, 32, 32).clone()
    image[2, 5, 7] = 0.1
    by_pixel = TrainedModel(**{**vars(model), "mean": image}).normalize(images)
    assert by_pixel[1, 2, 5, 7].item() == pytest.approx(
        (images[1, 2, 5, 7].item() / 255 - 0.1) / 0.3, abs=1e-6
    )
    by_pixel[:, 2, 5, 7] = by_channel[:, 2, 5, 7]
    assert torch.equal(by_pixel, by_channel)


def test_a_view_is_saved_without_its_storage(model, tmp_path):
    big = torch.zeros(10_000_000)
    save_trained_model(tmp_path / "model.pt", TrainedModel(**{**vars(model), "mean": big[:3]}))
    assert (tmp_path / "model.pt").stat().st_size < 3_000_000


class _Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_of_other_objects_is_refused_without_running_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.pt").write_bytes(pickle.dumps(_Bomb()))
    torch.save({"format": trained.FORMAT, "model": _Bomb()}, "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(UserError, match="objects other than tensors and primitives, which are never"):
            load_trained_model(Path(name))
    assert not Path("exploded").exists()


def test_other_files_are_refused(model, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(UserError, match="no trained model at"):
        load_trained_model(path)
    path.write_text("hello\n")
    with pytest.raises(UserError, match="damaged or not a trained model"):
        load_trained_model(path)
    torch.save(model.state_dict, path)
    with pytest.raises(UserError, match="not a trained model of this platform"):
        load_trained_model(path)


def test_every_kind_of_damage_is_refused(path):
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged"):
            load_trained_model(path)
    # One flipped bit among the weights.
    path.write_bytes(
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    )
    with pytest.raises(UserError, match="damaged"):
        load_trained_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "has schema version 2, this program reads 1"),
        ({"state_dict": [1, 2]}, "does not match its digest"),
        ({"mean": None}, "does not match its digest"),
        ({"class_names": ["cat"]}, "does not match its digest"),
        ({"data_label": "cifar10"}, "does not match its digest"),
        ({"shorter_side": 224}, "does not match its digest"),
    ],
)
def test_changed_content_is_refused(path, change, message):
    document = torch.load(path, weights_only=True)
    torch.save({**document, **change}, path)
    with pytest.raises(UserError, match=message):
        load_trained_model(path)


def test_weights_of_another_network_are_refused(model, path):
    save_trained_model(path, TrainedModel(**{**vars(model), "model": ModelConfig(name="resnet32_cifar")}))
    with pytest.raises(UserError, match="do not fit resnet32_cifar"):
        load_trained_model(path)


def test_a_failed_save_leaves_the_old_file(model, path, monkeypatch):
    def torn(document, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(UserError, match="No space left on device"):
        save_trained_model(path, model)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
