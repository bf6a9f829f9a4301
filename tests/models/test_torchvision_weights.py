"""torchvision state dicts: recognition, loading, class names, conversion, and errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18, resnet50
from torchvision.transforms import v2

from platform.common.errors import UsageError, UserError
from platform.data.images.cropping import resize_and_center_crop, resize_and_crop
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.torchvision_weights import load_model, main, read_class_names
from platform.models.trained import TrainedModel, load_trained_model, save_trained_model


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=4).eval()


@pytest.fixture(scope="module")
def file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


def random_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_converted_state_dict_gives_torchvisions_logits(file, network):
    image = random_image(300, 260)
    model = load_model(file)
    transforms = v2.Compose(
        [
            v2.Resize(256),
            v2.CenterCrop(224),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.no_grad():
        expected = network(transforms(Image.fromarray(image))[None])
        got = model.network()(model.normalize(model.pixels([image])))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert model.model.name == "resnet18"
    assert model.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state_dict", "net", "state_dict_ema", "anything"]
)
def test_a_state_dict_is_found_inside_a_training_checkpoint(key, network, tmp_path):
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "optimizer": {"state": {}}, key: weights}, tmp_path / "checkpoint.pth")
    assert load_model(tmp_path / "checkpoint.pth").state_dict.keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_orig_mod.{name}",  # torch.compile
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"net.{name}",  # a network in a LightningModule
        lambda name: name.replace("layer1.", "layer1._orig_mod."),  # a part was compiled
    ],
    ids=["compiled", "compiled in parallel", "lightning", "partly compiled"],
)
def test_names_added_by_wrappers_are_removed(network, tmp_path, wrapped):
    path = tmp_path / "wrapped.pth"
    torch.save({wrapped(name): value for name, value in network.state_dict().items()}, path)
    assert load_model(path).state_dict.keys() == network.state_dict().keys()


def test_averaged_weights_are_read(network, tmp_path):
    torch.save(torch.optim.swa_utils.AveragedModel(network).state_dict(), tmp_path / "averaged.pth")
    assert load_model(tmp_path / "averaged.pth").state_dict.keys() == network.state_dict().keys()


def test_weights_without_batch_counters_are_read(network, tmp_path):
    weights = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "old.pth")
    assert load_model(tmp_path / "old.pth").state_dict.keys() == network.state_dict().keys()


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.pth"])
def test_safetensors_are_read(network, tmp_path, name):
    path = tmp_path / name
    save_file(network.state_dict(), path)
    loaded = load_model(path).state_dict
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="is a damaged safetensors file"):
        load_model(path)


def test_weights_that_are_not_finite_are_refused(network, tmp_path):
    weights = network.state_dict()
    torch.save({**weights, "fc.bias": weights["fc.bias"] * torch.nan}, tmp_path / "nan.pth")
    with pytest.raises(
        UserError, match=r"1 of 124 tensors contain NaN or infinity \(the first is fc\.bias\)"
    ):
        load_model(tmp_path / "nan.pth")


@pytest.mark.parametrize("shape", [(), (4,), (0, 512), (4, 512, 1, 1), (4, 100)])
def test_a_classifier_of_another_shape_is_refused(network, tmp_path, shape):
    torch.save({**network.state_dict(), "fc.weight": torch.zeros(shape)}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"fc\.weight") as caught:
        load_model(tmp_path / "odd.pth")
    assert "\n" not in str(caught.value)


def test_a_whole_pickled_network_is_refused_with_the_next_step(network, tmp_path):
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(UserError, match=r"save the weights: torch\.save\(network\.state_dict\(\), PATH\)"):
        load_model(tmp_path / "whole.pth")


def test_the_command_writes_a_trained_model_with_names_and_preprocessing(file, tmp_path, capsys):
    names, output = tmp_path / "names.txt", tmp_path / "model.pt"
    names.write_text("cat\ndog\ngreat owl\nnewt\n\n")
    assert main([str(file), "--classes", str(names), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    model = load_trained_model(output)
    assert model.class_names == ("cat", "dog", "great owl", "newt")
    assert (model.shorter_side, model.input_shape) == (256, (3, 224, 224))
    assert model.pixels([random_image(100, 333)]).shape == (1, 3, 224, 224)


def test_a_trained_model_keeps_its_class_names(tmp_path):
    config = ModelConfig(name="resnet20_cifar")
    model = TrainedModel(
        model=config,
        state_dict=build_network(config, num_classes=2).state_dict(),
        mean=torch.zeros(3),
        std=torch.ones(3),
        class_names=("cat", "dog"),
        input_shape=(3, 32, 32),
        data_label="generated",
    )
    path = tmp_path / "model.pt"
    save_trained_model(path, model)
    assert load_model(path).class_names == ("cat", "dog")
    assert load_model(path).pixels([random_image(40, 50)]).shape == (1, 3, 32, 32)
    with pytest.raises(UsageError, match="already contains class names"):
        load_model(path, class_names=["a", "b"])


def test_a_flipped_bit_is_detected(file, tmp_path):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        load_model(tmp_path / "flipped.pth")


def test_other_files_are_refused(file, tmp_path):
    with pytest.raises(UsageError, match="has 4 classes, got 2"):
        load_model(file, class_names=["cat", "dog"])
    other = tmp_path / "other.pth"
    torch.save(resnet50(num_classes=2).state_dict(), other)
    with pytest.raises(UserError, match="another network"):
        load_model(other)
    torch.save({"fc.weight": 3}, other)
    with pytest.raises(UserError, match="not a trained model"):
        load_model(other)
    with pytest.raises(UserError, match="contains no state dict"):
        main([str(other)])
    with pytest.raises(UserError, match="no trained model at"):
        load_model(tmp_path / "missing.pth")


def test_class_names_need_one_line_each(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match="line 2 is blank"):
        read_class_names(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="text file"):
        read_class_names(path)


@pytest.mark.parametrize("shape", [(300, 400), (500, 375), (256, 256), (100, 333), (231, 230)])
def test_center_crop_equals_torchvisions(shape):
    image = random_image(*shape)
    expected = v2.CenterCrop(224)(v2.Resize(256)(Image.fromarray(image)))
    np.testing.assert_array_equal(
        resize_and_center_crop(image, shorter_side=256, size=224), np.asarray(expected)
    )


def test_resize_and_crop_equals_a_crop_of_the_resized_image():
    image = random_image(90, 120)
    whole = np.asarray(v2.Resize(60)(Image.fromarray(image)))
    got = resize_and_crop(image, shorter_side=60, size=32, top=20, left=41)
    assert np.abs(got.astype(int) - whole[20:52, 41:73]).max() <= 1
