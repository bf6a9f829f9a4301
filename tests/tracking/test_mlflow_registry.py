"""Registration of the champion in MLflow's model registry."""

import json

import numpy as np
import pytest
import torch

from platform.common.errors import UserError
from platform.models.config import ModelConfig
from platform.models.networks import build_network
from platform.models.trained import TrainedModel, save_trained_model
from platform.tracking.events import SweepOutcome
from platform.tracking.mlflow_registry import AliasChoice, register_champion
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import open_store
from platform.tracking.sweep_folder import SweepFolder
from tests.tracking.examples import sweep


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = build_network(ModelConfig(name="resnet32_cifar"), num_classes=10)
    return TrainedModel(
        model=ModelConfig(name="resnet32_cifar"),
        state_dict=network.state_dict(),
        mean=torch.tensor([0.49, 0.48, 0.45]),
        std=torch.tensor([0.25, 0.24, 0.26]),
        class_names=tuple("abcdefghij"),
        input_shape=(3, 32, 32),
        data_label="cifar10",
    )


def test_the_registered_champion_predicts_like_the_network(mlflow_uri, trained, tmp_path, monkeypatch):
    folder = SweepFolder(tmp_path / "champ-20260301-120000")
    folder.export.mkdir(parents=True)
    (folder.export / "model.json").write_text("{}")
    folder.benchmark.write_text(json.dumps({"schema_version": 1}))
    model_path = tmp_path / "model.pt"
    save_trained_model(model_path, trained)
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(folder.path, space="champ"))
    observer.sweep_ended(SweepOutcome(status="finished"))

    champions: list[str | None] = []

    def choose_alias(new, champion):
        champions.append(champion and champion["data_label"])
        return AliasChoice("champion")

    first = register_champion(
        folder,
        model_path,
        choose_alias=choose_alias,
        tracking_uri=mlflow_uri,
        space="champ",
        metrics={"ncnn/int8_latency_ms_p50_t1": 0.2},
    )
    second = register_champion(
        folder,
        model_path,
        choose_alias=choose_alias,
        tracking_uri=mlflow_uri,
        space="champ",
        metrics={"test/accuracy": 0.9312},
        tags={"quick": "true"},
    )
    third = register_champion(
        folder,
        model_path,
        choose_alias=lambda *_: AliasChoice("candidate", "worse"),
        tracking_uri=mlflow_uri,
        space="champ",
    )
    assert (first.version, second.version, third.version) == ("1", "2", "3")
    assert third.choice.reason == "worse"
    assert champions == [None, "cifar10"]

    client = open_store(mlflow_uri)
    assert int(client.get_model_version_by_alias("champ", "candidate").version) == 3
    version = client.get_model_version_by_alias("champ", "champion")
    assert version.version == "2" or version.version == 2
    assert version.tags == {
        "sweep_id": "champ-20260301-120000",
        "data_label": "cifar10",
        "test/accuracy": "0.9312",
        "quick": "true",
    }
    assert client.get_registered_model("champ").tags == version.tags, "those of the champion"
    names = {item.path for item in client.list_artifacts(version.run_id)}
    assert names == {"model", "checkpoint", "export", "benchmark.json"}

    import mlflow
    from mlflow.pyfunc.scoring_server import invocations

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    model = mlflow.pyfunc.load_model("models:/champ@champion")
    found = model.predict(images)
    with torch.no_grad():
        expected = trained.network()(trained.normalize(torch.from_numpy(images)))
    np.testing.assert_allclose([row["logits"] for row in found], expected.numpy(), atol=1e-4)
    best = expected.softmax(dim=1).max(dim=1)
    assert [row["class"] for row in found] == [trained.class_names[index] for index in best.indices]
    assert [row["probability"] for row in found] == pytest.approx(best.values.tolist(), abs=1e-4)
    for same in (images / 255, images.tolist(), (images / 255).astype(np.float32)):
        again = model.predict(np.asarray(same))
        np.testing.assert_allclose([row["logits"] for row in again], expected.numpy(), atol=1e-4)
    assert model.predict(images[0])[0]["class"] == found[0]["class"]
    served = invocations(json.dumps({"inputs": images.tolist()}), "application/json", model, None)
    assert json.loads(served.response)["predictions"] == found, "the answer of `mlflow models serve`"
    with pytest.raises(Exception, match=r"must have the shape \[N, 3, 32, 32\]; got \(5, 3, 16, 16\)"):
        model.predict(images[:, :, :16, :16])
    with pytest.raises(Exception, match="integers from 0 to 255 or floats from 0 to 1; got float64"):
        model.predict(images.astype(float))
    assert 'load_model("models:/champ@champion")' in version.description
    assert "mlflow models serve" in client.get_registered_model("champ").description
    assert mlflow.active_run() is None


def test_registering_a_sweep_without_a_run_fails(mlflow_uri, trained, tmp_path):
    save_trained_model(tmp_path / "model.pt", trained)
    with pytest.raises(UserError, match="has no run of the sweep unknown-20260301-120000"):
        register_champion(
            SweepFolder(tmp_path / "unknown-20260301-120000"),
            tmp_path / "model.pt",
            choose_alias=lambda *_: AliasChoice("champion"),
            tracking_uri=mlflow_uri,
            space="unknown",
        )
