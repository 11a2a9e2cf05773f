"""The real clock in what can be checked without waiting; the manual clock in full."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.clock import SystemClock
from cagg.errors import InvalidInput
from cagg.ports import Clock
from cagg.testing import ManualClock

START = datetime(2026, 11, 23, 22, tzinfo=UTC)


def test_both_are_clocks() -> None:
    clocks: list[Clock] = [SystemClock(), ManualClock()]
    assert all(clock.now().tzinfo is UTC for clock in clocks)


def test_the_system_clock_never_blocks_for_nothing() -> None:
    clock = SystemClock()
    before = clock.monotonic_ns()
    clock.sleep(0)
    clock.sleep(-5)
    event = threading.Event()
    assert clock.wait(event, 0) is False
    event.set()
    assert clock.wait(event, 3_600) is True
    assert clock.monotonic_ns() >= before


def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(START)
    assert clock.now() == clock.now() == START
    assert clock.monotonic_ns() == 0
    clock.advance(90)
    assert clock.now() == START + timedelta(seconds=90)
    assert clock.monotonic_ns() == 90_000_000_000


@given(st.lists(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)), max_size=5))
def test_wall_and_monotonic_time_move_together(steps: list[timedelta]) -> None:
    clock = ManualClock(START)
    for step in steps:
        clock.advance(step)
    assert clock.now() - START == sum(steps, timedelta(0))
    assert timedelta(microseconds=clock.monotonic_ns() // 1_000) == clock.now() - START


def test_sleeping_moves_the_time() -> None:
    clock = ManualClock(START)
    clock.sleep(3_600)
    clock.sleep(0)
    clock.sleep(-1)
    assert clock.now() == START + timedelta(hours=1)


def test_waiting_moves_the_time_unless_the_event_is_set() -> None:
    clock, event = ManualClock(START), threading.Event()
    assert clock.wait(event, 60) is False
    assert clock.now() == START + timedelta(seconds=60)
    event.set()
    assert clock.wait(event, 60) is True
    assert clock.now() == START + timedelta(seconds=60)


def test_the_start_needs_an_offset_and_is_kept_in_utc() -> None:
    with pytest.raises(InvalidInput, match="the clock's start"):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test
    clock = ManualClock(START.astimezone(timezone(timedelta(hours=9))))
    assert clock.now().tzinfo is UTC
    assert clock.now() == START


def test_time_does_not_run_backwards() -> None:
    clock = ManualClock(START)
    with pytest.raises(InvalidInput, match="step_wall_clock"):
        clock.advance(-1)
    with pytest.raises(InvalidInput, match="step_wall_clock"):
        clock.advance_to(START - timedelta(seconds=1))
    clock.advance_to(START + timedelta(hours=2))
    assert clock.now() == START + timedelta(hours=2)


def test_a_time_servers_step_is_not_seen_by_monotonic_time() -> None:
    clock = ManualClock(START)
    clock.step_wall_clock(timedelta(hours=-1))
    assert clock.now() == START - timedelta(hours=1)
    assert clock.monotonic_ns() == 0


def test_a_heartbeat_in_the_background_beats_at_the_right_times() -> None:
    clock, stop, beats = ManualClock(START), threading.Event(), []

    def beat() -> None:
        while not clock.wait(stop, 60):
            beats.append((clock.now() - START).total_seconds())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    _until(lambda: thread in clock._due_ns)
    clock.advance(59)
    assert beats == []
    clock.advance(241)
    assert beats == [60, 120, 180, 240, 300]
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    clock.advance(600)
    assert len(beats) == 5


def test_two_heartbeats_take_turns() -> None:
    clock, stop, beats = ManualClock(START), threading.Event(), []

    def beat(name: str, every_seconds: float) -> None:
        while not clock.wait(stop, every_seconds):
            beats.append((name, clock.monotonic_ns() // 1_000_000_000))

    threads = [threading.Thread(target=beat, args=pair, daemon=True) for pair in (("slow", 50), ("fast", 20))]
    for thread in threads:
        thread.start()
    _until(lambda: len(clock._due_ns) == 2)
    clock.advance(70)
    stop.set()
    for thread in threads:
        thread.join(timeout=10)
    assert beats == [("fast", 20), ("fast", 40), ("slow", 50), ("fast", 60)]


def test_many_threads_lose_no_time() -> None:
    clock = ManualClock(START)
    threads = [threading.Thread(target=lambda: [clock.sleep(1) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert clock.now() == START + timedelta(seconds=800)


def _until(condition: object) -> None:
    """Let a thread that was just started reach its wait; gives up after some seconds of real time."""
    pause = threading.Event()
    for _ in range(5_000):
        if condition():  # type: ignore[operator]
            return
        pause.wait(0.001)
    raise AssertionError("the thread never waited")
