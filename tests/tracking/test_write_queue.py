"""The write queue: order, pauses, retries during an outage, rejected records."""

import logging
import threading
import time

from platform.tracking.write_queue import WriteQueue


class Store:
    def __init__(self):
        self.got = []
        self.unavailable = False
        self.failures = 0
        self.failed_often = threading.Event()

    def write(self, value):
        def operation():
            if self.unavailable:
                self.failures += 1
                if self.failures == 3:
                    self.failed_often.set()
                raise ConnectionError("no route\nto host")
            self.got.append(value)

        return operation


def test_writes_are_retried_in_order_and_an_outage_is_logged_once(caplog):
    store = Store()
    queue = WriteQueue(store="the store", first_pause_s=0.001)
    with caplog.at_level(logging.WARNING):
        queue.put(store.write(0))
        assert queue.flush(timeout_s=30) == 0
        store.unavailable = True
        for value in range(1, 6):
            queue.put(store.write(value))
        assert store.failed_often.wait(30)
        store.unavailable = False
        assert queue.close(timeout_s=30) == 0
    assert store.got == [0, 1, 2, 3, 4, 5]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the store is unavailable (no route to host); keeping records in memory and retrying",
        "the store is available again",
    ]


def test_a_single_failure_is_not_logged(caplog):
    got = []
    errors = iter([ConnectionError("locked"), None])

    def operation():
        error = next(errors)
        if error:
            raise error
        got.append(1)

    queue = WriteQueue(store="the store", first_pause_s=0.001)
    with caplog.at_level(logging.WARNING):
        queue.put(operation)
        assert queue.close(timeout_s=30) == 0
    assert (got, caplog.text) == ([1], "")


def test_a_rejected_record_does_not_block_the_next(caplog):
    store = Store()

    def rejected():
        raise ValueError("value too long")

    queue = WriteQueue(store="the store", is_refusal=lambda error: isinstance(error, ValueError))
    with caplog.at_level(logging.WARNING):
        queue.put(rejected)
        queue.put(store.write(1))
        assert queue.close(timeout_s=30) == 0
    assert store.got == [1]
    assert "rejected a record: value too long" in caplog.text


def test_close_returns_the_number_of_dropped_records():
    store = Store()
    store.unavailable = True
    queue = WriteQueue(store="the store", first_pause_s=0.001)
    for value in range(3):
        queue.put(store.write(value))
    assert queue.close(timeout_s=0.05) == 3
    assert store.got == []


def test_the_queue_pauses_after_a_write_unless_it_is_flushed():
    store, written = Store(), threading.Event()
    queue = WriteQueue(store="the store", rest_s=3600.0)
    queue.put(written.set)
    assert written.wait(30)
    queue.put(store.write(1))
    time.sleep(0.05)
    assert store.got == []
    assert queue.close(timeout_s=30) == 0
    assert store.got == [1]
