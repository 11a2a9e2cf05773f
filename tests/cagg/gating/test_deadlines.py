"""Deadlines: first time of day after the scheduled start, explicit instants, longest waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cagg.errors import ConfigurationError, InvalidInput
from cagg.request import GateOptions
from cagg.steps.deadlines import resolve_deadline

ASKED = datetime(2026, 11, 23, 22, 5, tzinfo=UTC)


def resolve(
    options: GateOptions,
    *,
    asked: datetime = ASKED,
    scheduled: datetime | None = None,
    zone: str | None = "Europe/London",
) -> datetime | None:
    return resolve_deadline(
        options,
        first_asked_at=asked,
        scheduled_start=scheduled,
        time_zone=zone,
        upper_duration=timedelta(minutes=30),
        wake_margin=timedelta(minutes=1),
    )


def test_nothing_said_is_no_deadline() -> None:
    assert resolve(GateOptions()) is None


def test_a_time_of_day_counts_from_the_scheduled_start() -> None:
    late = datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
    scheduled = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
    assert resolve(GateOptions(finish_by="06:00"), asked=late, scheduled=scheduled) == datetime(
        2026, 11, 24, 6, tzinfo=UTC
    )
    assert resolve(GateOptions(finish_by="06:00"), asked=late) == datetime(2026, 11, 25, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        # clocks go forward on 29 March 2026 at 01:00 UTC, back on 25 October at 01:00 UTC
        (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 3, 29, 5, tzinfo=UTC)),
        (datetime(2026, 10, 24, 21, tzinfo=UTC), datetime(2026, 10, 25, 6, tzinfo=UTC)),
    ],
)
def test_local_clocks_change_at_night(asked: datetime, expected: datetime) -> None:
    assert resolve(GateOptions(finish_by="06:00"), asked=asked) == expected


def test_a_time_of_day_without_a_time_zone_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"timezone in cagg\.toml"):
        resolve(GateOptions(finish_by="06:00"), zone=None)


def test_an_explicit_instant_that_is_past_at_the_first_ask_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="5 min ago"):
        resolve(GateOptions(finish_by=ASKED - timedelta(minutes=5)))
    later = ASKED + timedelta(minutes=5)
    assert resolve(GateOptions(finish_by=later)) == later


def test_the_longest_wait_bounds_the_start() -> None:
    assert resolve(GateOptions(max_wait="2h")) == ASKED + timedelta(hours=2, minutes=31)
