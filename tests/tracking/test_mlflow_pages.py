"""The pages of MLflow in a browser: `python -m platform.ui` opens the trials, the charts and the registry."""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from platform.tracking.mlflow_runs import MlflowObserver
from platform.tracking.mlflow_store import newest_experiment, open_store
from tests.tracking.examples import MlflowServer, free_port, record_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request, tmp_path_factory):
    """Yield the URI of a store with a sweep and a model: a file, or a server with PostgreSQL."""
    folder = tmp_path_factory.mktemp("pages")
    if request.param == "sqlite":
        yield record(f"sqlite:///{folder}/mlflow.db", folder)
        return
    server = MlflowServer(request.getfixturevalue("database"), folder / "artifacts")
    server.start()
    try:
        yield record(server.uri, folder)
    finally:
        server.kill()


def record(uri, folder):
    record_sweep(MlflowObserver(uri), folder / "resnet18_cifar-20260301-120000")
    client = open_store(uri)
    [parent] = client.search_runs([newest_experiment(client)], "tags.stage = 'sweep'")
    client.create_registered_model("resnet18_cifar")
    version = client.create_model_version(
        "resnet18_cifar", source=f"{parent.info.artifact_uri}/model", run_id=parent.info.run_id
    )
    client.set_registered_model_alias("resnet18_cifar", "champion", version.version)
    return uri


@pytest.fixture(scope="module")
def addresses(store):
    """Start the command, and return the addresses that it prints."""
    command = subprocess.Popen(
        [sys.executable, "-m", "platform.ui", "--tracking-uri", store, "--port", str(free_port())],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield dict(command.stdout.readline().strip().split(": ", 1) for _ in range(4))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.communicate(timeout=30)


@pytest.fixture(scope="module")
def page():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def test_the_comparison_shows_trials_with_accuracy_optimizer_and_learning_rate(page, addresses, store):
    page.goto(addresses["Compare recipes"])
    page.get_by_role("columnheader", name="lr", exact=True).first.wait_for()
    client = open_store(store)
    best, *_ = client.search_runs(
        [newest_experiment(client)], "tags.stage = 'search'", order_by=["metrics.val_accuracy DESC"]
    )
    page.get_by_text(best.info.run_name, exact=True).first.wait_for()
    table = page.locator(".ag-root").inner_text()
    rows = [line for line in table.splitlines() if line in {f"t{number:03d}" for number in range(6)}]
    assert rows[0] == best.info.run_name, "sorted by accuracy"
    assert len(rows) == 6
    assert str(best.data.metrics["val_accuracy"]) in table
    assert {"sgd", "adam", best.data.params["lr"], "val_accuracy", "optimizer"} <= set(table.splitlines())


def test_the_parallel_coordinates_have_the_searched_axes(page, addresses):
    page.goto(addresses["Compare recipes"].replace("=TABLE", "=CHART"))
    chart = page.locator("svg").filter(has_text="log10_lr").filter(has_text="optimizer").first
    chart.wait_for()
    axes = set(chart.locator("text").all_text_contents())
    assert {"optimizer", "log10_lr", "weight_decay", "schedule", "batch_size", "cutout.length"} <= axes
    assert {"sgd", "adam", "val_accuracy"} <= axes


@pytest.mark.parametrize(
    ("view", "texts"),
    [
        ("SGD vs Adam", ["Group: sgd", "Group: adam", "train/loss"]),
        ("Learning curves", ["val/accuracy", "train/loss", "t000"]),
        ("Confirmation", ["Group: t000", "c1-s0", "c2-s1", "val_accuracy_std"]),
    ],
)
def test_a_saved_view_opens(page, addresses, view, texts):
    page.goto(addresses[view])
    page.get_by_role("button", name=view).first.wait_for()
    for text in texts:
        page.get_by_text(text, exact=text != "Group: t000").first.wait_for()


def test_the_registry_shows_the_alias(page, addresses):
    server, _, _ = addresses["Compare recipes"].partition("#")
    page.goto(f"{server}#/models/resnet18_cifar")
    page.get_by_text("champion").first.wait_for()
