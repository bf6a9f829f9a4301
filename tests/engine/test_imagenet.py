"""An ImageNet network, from a torchvision state dict to the engine's predictions."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deploy.conversion.parity import random_images
from deploy.engine_build.engine import EngineBinaries
from deploy.export import export_model
from deploy.model_files.model_folder import open_model_folder
from platform.data.images.decode import decode_image
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.torchvision_weights import main as convert_weights
from platform.models.trained import load_trained_model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt from a state dict with random weights and batch-normalization statistics of random data."""
    folder = tmp_path_factory.mktemp("imagenet")
    torch.manual_seed(0)
    network = build_network(ModelConfig(name="resnet18"), num_classes=100).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of one batch suffice
    with torch.no_grad():
        network(torch.randn(8, 3, 64, 64))
    torch.save(network.state_dict(), folder / "resnet18.pth")
    assert convert_weights([str(folder / "resnet18.pth"), "--output", str(folder / "model.pt")]) == 0
    return folder / "model.pt"


def test_cpp_and_python_predict_the_same_five_classes_for_an_image_of_another_size(
    engine: EngineBinaries, model_path: Path, tmp_path: Path
) -> None:
    images = random_images(2, (3, 224, 224))
    folder = export_model(model_path, tmp_path / "export", parity_images=images, parity_data="random").path
    image = open_model_folder(folder).document.input
    assert (image.height, image.width, image.resize, image.shorter_side) == (
        224,
        224,
        "shorter_side_crop",
        256,
    )

    coarse = np.random.default_rng(4).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    path = tmp_path / "image.jpg"
    Image.fromarray(coarse).resize((451, 300), Image.Resampling.BICUBIC).save(path, quality=92)
    command = [str(engine.resnet18), "--model", str(folder), "--json", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(answer.stdout)["images"][0]["top"]

    model = load_trained_model(model_path)
    with torch.inference_mode():
        logits = model.network()(model.normalize(model.pixels([decode_image(path)])))
    expected = logits.softmax(1)[0].topk(5)
    assert [row["index"] for row in found] == expected.indices.tolist()
    assert [row["probability"] for row in found] == pytest.approx(expected.values.tolist(), rel=1e-3)
