"""``cagg assess`` as a person meets it, with an engine whose history the test writes down."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cagg.errors import ConfigurationError, HostUnavailable
from cagg.pastruns import HistoryOptions, PastPipeline, PastRun, RunOutcome, RunTrigger

NOW = datetime(2026, 1, 5, 22, 0, tzinfo=UTC)  # the clock of the tests' command line

Cli = Callable[..., Any]


class Engine:
    """An engine's adapter class; the runs are those of the test."""

    past: Sequence[PastRun] = ()
    pipelines_known: Sequence[PastPipeline] = ()
    error: Exception | None = None
    options: HistoryOptions | None = None
    asked: tuple[datetime, datetime] | None = None

    def __init__(self) -> None:
        self.notes = ["a note of the reader"]

    @classmethod
    @contextmanager
    def history(cls, options: HistoryOptions) -> Iterator[Engine]:
        cls.options = options
        if cls.error is not None:
            raise cls.error
        yield cls()

    def pipelines(self) -> Sequence[PastPipeline]:
        return self.pipelines_known

    def runs(self, since: datetime, until: datetime, progress: Callable[[int, int | None], None]) -> Iterator[PastRun]:
        type(self).asked = (since, until)
        for number, run in enumerate(self.past, start=1):
            progress(number, None)
            yield run

    def snippet(self, pipeline: str, zone: str | None, max_wait: str) -> str:
        return f"@gate({pipeline!r}, {zone!r}, {max_wait!r})\n    [indented]"


def run(day: int, hour: int, minutes: int, **fields: Any) -> PastRun:
    start = NOW.replace(hour=0) - timedelta(days=day) + timedelta(hours=hour)
    stated: dict[str, Any] = {
        "pipeline": "nightly",
        "run_id": f"{day}-{hour}",
        "outcome": RunOutcome.SUCCEEDED,
        "trigger": RunTrigger.SCHEDULED,
        "scheduled_at": start,
        "started_at": start,
        "ended_at": start + timedelta(minutes=minutes),
    }
    return PastRun(**{**stated, **fields})


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    mine = type("Mine", (Engine,), {})
    mine.past = [run(day, 18, 60) for day in range(1, 5)]
    mine.past += [run(day, 9, 15, pipeline="[b]small[/b]", trigger=RunTrigger.MANUAL) for day in range(1, 3)]
    mine.pipelines_known = [PastPipeline(name="nightly", schedule="0 18 * * *")]

    def broken() -> Any:
        raise ImportError("No module named 'engine'")

    points = [
        SimpleNamespace(name="airflow", load=lambda: mine),
        SimpleNamespace(name="prefect", load=broken),
        SimpleNamespace(name="old", load=object),
    ]
    monkeypatch.setattr("cagg.cli.assess.entry_points", lambda group: points)
    return mine


def test_the_few_and_what_to_do_next(cli: Cli, engine: type[Engine]) -> None:
    done = cli("assess", "airflow", "--zone", "climatology:DE", "--power", "100..200 W")
    assert (done.status, done.err) == (0, "")
    assert "airflow, 30 days: 6 pipeline runs, 6 attempts, 4 h 30 min of work" in done.out
    assert "450 Wh to 900 Wh" in done.out
    assert "1 of 2 pipelines make up 80 % of the energy" in done.out
    assert "[b]small[/b]" in done.out  # no markup
    assert "every run is taken to draw 100 W to 200 W, as stated" in done.out
    assert "a note of the reader" in done.out
    assert "saved" not in done.out
    lines = done.out.splitlines()
    assert lines[-1] == "Next: gate nightly first, in observe mode, as above."
    assert "    @gate('nightly', 'climatology:DE', '8h')" in lines
    assert "        [indented]" in lines


def test_json_holds_ranges_and_provenance(cli: Cli, engine: type[Engine]) -> None:
    done = cli("assess", "airflow", "--zone", "climatology:DE", "--power", "100..200 W", "--json")
    shown = done.json
    assert shown["totals"]["energy_millijoules"] == {"low": 1_620_000_000, "high": 3_240_000_000}
    assert shown["provenance"] == "estimated from durations"
    assert shown["few"] == ["nightly"]
    assert shown["gate_first"] == ["nightly"]
    nightly = shown["pipelines"][0]
    assert nightly["schedule"] == "0 18 * * *"
    assert nightly["slack_seconds"] == 8 * 3600
    assert nightly["intensity_difference_micrograms"]["low"] > 0
    assert nightly["carbon_micrograms"]["high"] >= 2 * nightly["carbon_micrograms"]["low"] - 2
    assert shown["pipelines"][1]["deferrable_share_ppm"] == {"low": 0, "high": 0}


def test_without_a_zone_carbon_is_null_with_the_reason(cli: Cli, engine: type[Engine]) -> None:
    done = cli("assess", "airflow", "--json")
    assert done.status == 0
    assert done.json["totals"]["carbon_micrograms"] is None
    assert "no zone is set" in done.json["pipelines"][0]["carbon_reason"]
    text = cli("assess", "airflow").out
    assert "carbon unknown" in text
    assert "Unknown: no zone is set; give --zone, or run `cagg init`." in text


def test_a_zone_without_hours_has_carbon_and_no_difference(cli: Cli, engine: type[Engine]) -> None:
    shown = cli("assess", "airflow", "--zone", "yearly:ISL", "--json").json
    assert shown["totals"]["carbon_micrograms"]["high"] > 0
    assert shown["totals"]["intensity_difference_micrograms"] is None
    assert "no better hours" in shown["pipelines"][0]["intensity_difference_reason"]


def test_the_zone_and_the_accounting_source_of_the_settings_are_used(
    cli: Cli, engine: type[Engine], night: Path
) -> None:
    engine.past = [run(0, 3, 60), run(0, 20, 60)]  # at 100 and at 300 g/kWh of the recorded series
    shown = cli("assess", "airflow", "--since", "2026-01-05T00:00:00+00:00", "--power", "1 kW", "--json").json
    assert shown["zone"] == "trace:test"
    assert shown["carbon_source"].startswith("trace")
    assert shown["totals"]["carbon_micrograms"] == {"low": 400_000_000, "high": 400_000_000}


def test_files_are_written(cli: Cli, engine: type[Engine], home: Path) -> None:
    done = cli("assess", "airflow", "--csv", "out.csv", "--html", "out.html")
    assert done.status == 0
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["pipeline"] for row in rows] == ["nightly", "[b]small[/b]"]
    page = Path("out.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "nightly" in page
    assert "Written: out.csv" in done.out
    assert done.out.splitlines()[-1].startswith("Next: ")


def test_nothing_that_ran_is_status_1(cli: Cli, engine: type[Engine]) -> None:
    engine.past = []
    done = cli("assess", "airflow")
    assert done.status == 1
    assert "Nothing ran on this airflow" in done.out
    assert done.out.splitlines()[-1].startswith("Next: look further back")
    assert cli("assess", "airflow", "--json").status == 1


def test_nothing_worth_a_gate_says_so(cli: Cli, engine: type[Engine]) -> None:
    done = cli("assess", "airflow", "--power", "1 W")
    assert done.status == 0
    assert "Nothing here is worth waiting for" in done.out
    assert done.out.splitlines()[-1].startswith("Next: ")


def test_address_and_time_are_handed_on(cli: Cli, engine: type[Engine]) -> None:
    cli("assess", "airflow", "--url", "http://there:1", "--since", "7d")
    assert engine.options is not None
    assert engine.options.url == "http://there:1"
    assert engine.asked == (NOW - timedelta(days=7), NOW)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "there is no engine 'nothing' to assess; name airflow or old or prefect"),
        (("prefect",), "pip install 'cagg[prefect]'"),
        (("old",), "has no run history"),
        (("airflow", "--since", "tomorrow"), "--since"),
        (("airflow", "--since", "2026-01-01T00:00:00"), "no UTC offset"),
        (("airflow", "--since", "2027-01-01T00:00:00Z"), "lies in the future"),
        (("airflow", "--since", "500d"), "more than 400 days"),
        (("airflow", "--since", "0001-01-01T00:00:00Z"), "more than 400 days"),
        (("airflow", "--max-wait", "60d"), "longer than a month"),
        (("airflow", "--max-wait", "0s"), "longer than zero"),
        (("airflow", "--power", "much"), "needs a number and a unit"),
        (("airflow", "--power", "100 W..50 W"), "must not end below its start"),
        (("airflow", "--zone", "nowhere"), "is unknown"),
        (("airflow", "--zone", ""), "--zone is empty"),
        (("airflow", "--url", " "), "--url is empty"),
        (("airflow", "--csv", "no/such/folder.csv"), "cannot be written"),
        (("airflow", "--html", "."), "cannot be written"),
        ((), "see `cagg assess --help`"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    cli: Cli, engine: type[Engine], said: Callable[[Any], None], arguments: tuple[str, ...], words: str
) -> None:
    done = cli("assess", *arguments)
    assert done.status == 2
    said(done)
    assert words in done.err
    assert engine.asked is None


@pytest.mark.parametrize("error", [HostUnavailable("the engine is down; start it."), ConfigurationError("say where.")])
def test_an_engine_that_does_not_answer_is_one_sentence(
    cli: Cli, engine: type[Engine], said: Callable[[Any], None], error: Exception
) -> None:
    engine.error = error
    done = cli("assess", "airflow")
    assert (done.status, done.err) == (2, f"cagg: {error}\n")
    said(done)


def test_a_history_that_breaks_off_leaves_no_answer(cli: Cli, engine: type[Engine]) -> None:
    def breaks(self: Any, *arguments: Any) -> Iterator[PastRun]:
        yield run(1, 1, 1)
        raise HostUnavailable("the engine went away; ask again.")

    engine.runs = breaks  # type: ignore[method-assign]
    done = cli("assess", "airflow", "--csv", "out.csv")
    assert (done.status, done.out) == (2, "")
    assert not Path("out.csv").exists()


def test_runs_are_taken_one_by_one(cli: Cli, engine: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """A history of any length is never held as a whole."""
    import weakref

    living: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    class Tracked:
        """Stands for a past run, and can be watched."""

        def __init__(self, inner: PastRun) -> None:
            self.inner = inner
            living.add(self)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    def many(self: Any, *arguments: Any) -> Iterator[Any]:
        nonlocal most
        for number in range(1_000):
            yield Tracked(run(1 + number % 20, 1, 10, task=f"t{number}"))
            most = max(most, len(living))

    monkeypatch.setattr(engine, "runs", many)
    done = cli("assess", "airflow", "--json")
    assert (done.json["totals"]["attempts"], done.json["totals"]["runs"]) == (1_000, 20)
    assert most <= 2
