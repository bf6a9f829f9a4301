"""A finished sweep folder shared by all tests that only read it."""

import pytest

from tests.reporting.example_sweep import write_example


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return write_example(tmp_path_factory.mktemp("finished"))
