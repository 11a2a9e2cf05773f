"""When the work must be finished: resolved once, at the first ask, and inherited by deferrals and retries."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from cagg.errors import ConfigurationError, InvalidInput
from cagg.request import GateOptions
from cagg.windows import format_duration, next_time_of_day, parse_time_of_day

__all__ = ["resolve_deadline"]


def resolve_deadline(
    options: GateOptions,
    *,
    first_asked_at: datetime,
    scheduled_start: datetime | None,
    time_zone: str | None,
    upper_duration: timedelta,
    wake_margin: timedelta,
    config_file: Path | None = None,
) -> datetime | None:
    """Return the instant by which the work must be finished; None when nothing was said.

    Args:
        options: finish_by or max_wait.
        first_asked_at: instant of the first ask.
        scheduled_start: what times of day and max_wait count from; None = the first ask (manual run, backfill).
        time_zone: IANA zone of the schedule, else of the settings; only times of day need it.
        upper_duration: bound of the duration; max_wait bounds the start, the deadline lies this much later.
        wake_margin: how long the host may take to wake.
        config_file: the settings file that was read, for the error; None when none was found.

    Raises:
        InvalidInput: an explicit instant lies in the past at the first ask.
        ConfigurationError: a time of day was given and no time zone is known.
    """
    reference = scheduled_start or first_asked_at
    if isinstance(options.max_wait, timedelta):
        return reference + options.max_wait + upper_duration + wake_margin
    if options.finish_by is None:
        return None
    if isinstance(options.finish_by, datetime):
        if options.finish_by <= first_asked_at:
            late = format_duration(first_asked_at - options.finish_by)
            raise InvalidInput(
                f"finish_by {options.finish_by.isoformat()} was {late} ago; give an instant in the future, "
                "or a time of day such as '06:00'."
            )
        return options.finish_by
    time_of_day = parse_time_of_day(options.finish_by)
    if time_of_day is None:
        raise InvalidInput(f"finish_by {options.finish_by!r} is neither a time of day nor an instant with an offset.")
    if time_zone is None:
        found = "none was found from here upwards" if config_file is None else str(config_file)
        raise ConfigurationError(
            f"finish_by {options.finish_by!r} needs a time zone; set timezone in cagg.toml ({found}; "
            'for example timezone = "Europe/London") or CAGG_TIMEZONE.'
        )
    return next_time_of_day(time_of_day, reference, time_zone)
