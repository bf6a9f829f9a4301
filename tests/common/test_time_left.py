"""Progress messages with the time left."""

from platform.common.time_left import TimeLeft


class Work:
    """Work with its own clock, and the messages about it."""

    def __init__(self, total: float, unit: str | None = None) -> None:
        self.now = 0.0
        self.messages: list[str] = []
        self.meter = TimeLeft("working", total, self.messages.append, unit=unit, clock=lambda: self.now)

    def reach(self, now: float, done: float) -> None:
        self.now = now
        self.meter.update(done)


def test_count_and_time_left_every_two_seconds() -> None:
    work = Work(10_000, "images")
    for second in range(1, 11):
        work.reach(second, 1000 * second)
    assert work.messages == [
        "working: 2,000 of 10,000 images, 8.0 s left",
        "working: 4,000 of 10,000 images, 6.0 s left",
        "working: 6,000 of 10,000 images, 4.0 s left",
        "working: 8,000 of 10,000 images, 2.0 s left",
    ]


def test_percentage_without_a_unit() -> None:
    work = Work(1.0)
    work.reach(30, 0.25)
    assert work.messages == ["working: 25 %, 1 min 30 s left"]


def test_short_work_is_not_reported() -> None:
    work = Work(100, "images")
    work.reach(1.0, 50)
    work.reach(1.9, 100)
    assert work.messages == []


def test_time_left_follows_a_change_of_speed() -> None:
    work = Work(1000)
    for second in range(10, 610, 10):
        work.reach(second, second / 10)
    # Another process ends, and the work becomes ten times faster.
    for second in range(610, 680, 10):
        work.reach(second, 60 + second - 600)
    assert work.messages[59] == "working: 6 %, 2 h 37 min left"
    assert work.messages[-1] == "working: 13 %, 14 min 30 s left"
