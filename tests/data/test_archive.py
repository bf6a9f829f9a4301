"""The pickles of the Python archive: plain values and arrays are loaded, everything else is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from platform.common.errors import UserError
from platform.data.formats.archive import load_plain_pickle


class RunsACommand:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def test_plain_values_and_arrays_are_read() -> None:
    made = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [1, 2], "name": "x"}
    read = load_plain_pickle(pickle.dumps(made, protocol=4), "batch")
    np.testing.assert_array_equal(read["data"], made["data"])
    assert (read["labels"], read["name"]) == ([1, 2], "x")


def test_arrays_pickled_by_python_2_are_read() -> None:
    # {"data": array([[7]], uint8)}, pickled by numpy 1 under Python 2, with numpy's old module name.
    old = (
        b"\x80\x02}q\x01U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85"
        b"U\x01b\x87Rq\x05(K\x01K\x01K\x01\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x01\x07tbs."
    )
    np.testing.assert_array_equal(load_plain_pickle(old, "batch")["data"], np.array([[7]], np.uint8))


def test_other_objects_are_refused_without_being_built(tmp_path: Path) -> None:
    marker = tmp_path / "made"
    with pytest.raises(UserError, match=r"batch: unsafe pickle: it imports .*mkdir"):
        load_plain_pickle(pickle.dumps({"data": RunsACommand(marker)}), "batch")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"a": "b" * 99})[:40], pickle.dumps([1])])
def test_a_damaged_pickle_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(UserError, match="batch"):
        load_plain_pickle(content, "batch")
