"""One MLflow database for all tests, because creating its tables takes seconds."""

import pytest


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    from platform.tracking.mlflow_store import open_store

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    open_store(uri)
    return uri
