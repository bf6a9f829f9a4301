"""Records reach a store that comes and goes, in order, and nobody waits for it meanwhile."""

import logging
import threading

from platform.tracking.write_queue import Delivery


class Store:
    def __init__(self):
        self.got = []
        self.away = False
        self.failures = 0
        self.asked_often = threading.Event()

    def write(self, value):
        def operation():
            if self.away:
                self.failures += 1
                if self.failures == 3:
                    self.asked_often.set()
                raise ConnectionError("no route\nto host")
            self.got.append(value)

        return operation


def test_an_outage_is_waited_out_in_order_and_told_once(caplog):
    store = Store()
    delivery = Delivery(store="the store", first_pause_s=0.001)
    with caplog.at_level(logging.WARNING):
        delivery.put(store.write(0))
        assert delivery.flush(timeout_s=30) == 0
        store.away = True
        for value in range(1, 6):
            delivery.put(store.write(value))
        assert store.asked_often.wait(30)
        store.away = False
        assert delivery.close(timeout_s=30) == 0
    assert store.got == [0, 1, 2, 3, 4, 5]
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the store does not answer (no route to host); keeping records, trying again",
        "the store answers again",
    ]


def test_a_hiccup_is_not_worth_a_line(caplog):
    got = []
    answers = iter([ConnectionError("locked"), None])

    def operation():
        error = next(answers)
        if error:
            raise error
        got.append(1)

    delivery = Delivery(store="the store", first_pause_s=0.001)
    with caplog.at_level(logging.WARNING):
        delivery.put(operation)
        assert delivery.close(timeout_s=30) == 0
    assert (got, caplog.text) == ([1], "")


def test_a_refused_record_does_not_hold_up_the_next(caplog):
    store = Store()

    def refused():
        raise ValueError("value too long")

    delivery = Delivery(store="the store", is_refusal=lambda error: isinstance(error, ValueError))
    with caplog.at_level(logging.WARNING):
        delivery.put(refused)
        delivery.put(store.write(1))
        assert delivery.close(timeout_s=30) == 0
    assert store.got == [1]
    assert "refused a record: value too long" in caplog.text


def test_closing_without_an_answer_counts_what_is_lost():
    store = Store()
    store.away = True
    delivery = Delivery(store="the store", first_pause_s=0.001)
    for value in range(3):
        delivery.put(store.write(value))
    assert delivery.close(timeout_s=0.05) == 3
    assert store.got == []
