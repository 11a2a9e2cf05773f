"""Every provider, the fake included, keeps the same contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cagg.errors import ConfigurationError
from cagg.grid.providers import PROVIDER_NAMES, GridSettings, build_providers
from cagg.grid.providers._trace_file import parse_trace
from cagg.grid.providers.climatology import ClimatologyProvider
from cagg.grid.providers.neso import NesoProvider
from cagg.grid.providers.trace import TraceProvider
from cagg.grid.providers.yearly import YearlyProvider
from cagg.grid.traits import GridProvider
from cagg.intensity import Zone
from cagg.testing import ManualClock
from cagg.testing.intensity import FakeProvider, IntensityProviderContract, series_of
from cagg.windows import Window

NOW = datetime(2023, 3, 14, 3, 12, tzinfo=UTC)


class Contract(IntensityProviderContract):
    code = "GB"

    def make_zone(self):
        return Zone(provider=self.make_provider().name, code=self.code)

    def make_window(self):
        return Window(start=NOW, end=NOW + timedelta(hours=8))


class TestFake(Contract):
    def make_provider(self):
        return FakeProvider(series_of(*range(20), start=NOW), clock=ManualClock(NOW))


class TestClimatology(Contract):
    def make_provider(self):
        return ClimatologyProvider(clock=ManualClock(NOW))


class TestYearly(Contract):
    code = "GBR"

    def make_provider(self):
        return YearlyProvider(clock=ManualClock(NOW))


class TestTrace(Contract):
    code = "t"

    def make_provider(self):
        rows = "start,g_per_kwh\n2023-03-14T00:00Z,1\n2023-03-14T06:00Z,2\n"
        return TraceProvider(parse_trace(rows.encode(), where="t", default_name="t"), clock=ManualClock(NOW))


class TestNeso(Contract):
    @pytest.fixture(autouse=True)
    def _answers(self, service, recorded):
        self.service = service(recorded("national_fw48h_2023-03-14T0301Z.json"))

    def make_provider(self):
        transport = self.service.transport
        return NesoProvider(clock=ManualClock(NOW), transport=transport, async_transport=transport)


class TestNesoRegion(TestNeso):
    code = "GB-1"

    @pytest.fixture(autouse=True)
    def _answers(self, service, recorded):
        national = recorded("national_fw48h_2023-03-14T0301Z.json")["data"]
        self.service = service({"data": {"regionid": 1, "shortname": "North Scotland", "data": national}})


# ---- the registry -------------------------------------------------------------------------------------------------


def test_every_name_builds_a_provider_of_that_name(tmp_path) -> None:
    file = tmp_path / "my-trace.csv"
    file.write_text("start,g_per_kwh\n2023-03-14T00:00Z,1\n2023-03-14T06:00Z,2\n", encoding="utf-8")
    settings = GridSettings(trace_file=file, trace_scale=60.0, trace_anchor=NOW, trace_name="named")
    built = build_providers(PROVIDER_NAMES, settings, ManualClock(NOW))
    assert tuple(provider.name for provider in built) == PROVIDER_NAMES
    assert all(isinstance(provider, GridProvider) for provider in built)
    trace = built[PROVIDER_NAMES.index("trace")]
    assert [str(entry.zone) for entry in trace.zones()] == ["trace:named"]
    assert trace.horizon == timedelta(minutes=12)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["nesso"], "did you mean 'neso'"),
        (["xyz"], "use neso, climatology"),
        (["neso", "neso"], "named twice"),
        (["trace"], r"grid\.trace\.file"),
    ],
)
def test_names_that_cannot_be_built(names, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        build_providers(names, GridSettings(), ManualClock(NOW))
