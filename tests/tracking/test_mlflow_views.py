"""The saved views of MLflow's UI, and the command that opens them."""

import json
import socket

import pytest

from platform import ui
from platform.common.errors import UserError
from platform.tracking.events import SweepOutcome, TrialStatus
from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import experiment_id, newest_experiment, open_store
from platform.tracking.mlflow_views import view_addresses, write_saved_views
from tests.tracking.examples import epoch, sweep, trial


def views(client, experiment):
    prefix = "mlflow.sharedViewState."
    tags = client.get_experiment(experiment).tags
    return {
        key.removeprefix(prefix): json.loads(text) for key, text in tags.items() if key.startswith(prefix)
    }


def test_the_views_of_a_sweep_list_its_trials_by_accuracy(mlflow_uri, tmp_path):
    info = sweep(tmp_path / "viewed-20260301-120000", space="viewed")
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(info)
    for number, accuracy in enumerate((0.5, 0.7)):
        one = trial(number)
        observer.trial_started(one)
        observer.epoch_finished(one, epoch(1, accuracy=accuracy))
        observer.trial_ended(one, TrialStatus.FINISHED)
    observer.sweep_ended(SweepOutcome(status="finished"))

    client = open_store(mlflow_uri)
    experiment = newest_experiment(client)
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"
    found = views(client, experiment)
    assert {key: view["name"] for key, view in found.items()} == {
        "compare-recipes": "Compare recipes",
        "optimizers": "SGD vs Adam",
        "learning-curves": "Learning curves",
        "confirmation": "Confirmation",
        info.sweep_id: info.sweep_id,
    }
    state = json.loads(found["compare-recipes"]["state"])
    assert state["selectedColumns"] == [
        "metrics.`val_accuracy`",
        *(
            f"params.`{name}`"
            for name in (
                "optimizer",
                "lr",
                "weight_decay",
                "schedule",
                "batch_size",
                "optimizer.beta2",
                "cutout.length",
            )
        ),
        "metrics.`epochs_trained`",
        "tags.`status`",
    ]
    [axes] = [chart["selectedParams"] for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert axes == ["optimizer", "log10_lr", "cutout.length"], "the settings that all trials have"
    order = "ASC" if state["orderByAsc"] else "DESC"
    runs = client.search_runs(
        [experiment], state["searchFilter"], order_by=[f"{state['orderByKey']} {order}"]
    )
    assert [run.data.tags["trial_id"] for run in runs] == ["t001", "t000"]


def test_the_addresses_of_the_views(mlflow_uri, tmp_path):
    client = open_store(mlflow_uri)
    experiment = experiment_id(client, mlflow_uri, "addresses")
    write_saved_views(client, experiment, sweep(tmp_path / "addresses-20260301-120000"), time_ms=1)
    addresses = view_addresses(client, "http://127.0.0.1:5000/", experiment)
    assert list(addresses) == ["Compare recipes", "SGD vs Adam", "Learning curves", "Confirmation"]
    assert addresses["Compare recipes"] == (
        f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?workflowType=machine_learning"
        "&compareRunsMode=TABLE&viewStateShareKey=compare-recipes"
    )


def test_the_command_needs_a_sweep_and_creates_no_database(tmp_path):
    store = tmp_path / "mlflow.db"
    with pytest.raises(UserError, match="has no sweep yet; run one with: make sweep"):
        ui.main(["--tracking-uri", f"sqlite:///{store}"])
    assert not store.exists()


def test_a_port_in_use_is_refused(mlflow_uri, tmp_path):
    observer = MlflowObserver(mlflow_uri)
    observer.sweep_started(sweep(tmp_path / "port-20260301-120000", space="port"))
    observer.sweep_ended(SweepOutcome(status="finished"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use; give another one with --port"):
            ui.main(["--tracking-uri", mlflow_uri, "--port", str(port)])
