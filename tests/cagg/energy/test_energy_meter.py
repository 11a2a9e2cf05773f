"""The meter as a whole: closure, overlap, nesting, faults, forks, heartbeats, and what an import does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cagg.clock import SystemClock
from cagg.energy.account import SliceList
from cagg.energy.domain import Missing, Selection
from cagg.energy.meter import IdlePolicy, Meter, MeterSettings, MeterWindow, UsageScope, probe
from cagg.energy.options import SOURCE_NAMES
from cagg.energy.selection import SourceFinder, select_sources
from cagg.errors import ConfigurationError, InvalidInput, MeterUnavailable, StoreUnavailable
from cagg.provenance import Grade
from cagg.quantities import Energy
from cagg.records import Reading
from cagg.testing.clock import ManualClock
from cagg.testing.energy import FakeGpu, FakePynvml, FakeSource, FakeUsage, fake_meter

QUIET = MeterSettings(background=False)


def joules(energy: Energy | None) -> float:
    assert energy is not None
    return energy.millijoules / 1000


def closes(reading: Reading) -> bool:
    parts = (reading.energy, reading.siblings, reading.other, reading.unowned_idle)
    assert reading.host_total is not None
    return sum(part.millijoules for part in parts if part is not None) == reading.host_total.millijoules


def check(reading: Reading) -> None:
    """What holds for every reading with energy."""
    assert closes(reading)
    assert reading.energy is not None
    assert reading.low is not None
    assert reading.high is not None
    assert reading.low <= reading.energy <= reading.high
    assert sum(piece.energy.millijoules for piece in reading.slices) == reading.energy.millijoules
    assert reading.slices[0].window.start == reading.window.start
    assert reading.slices[-1].window.end == reading.window.end
    for before, after in pairwise(reading.slices):
        assert before.window.end == after.window.start
    for part in reading.components:
        if part.energy is not None:
            assert part.dynamic is not None
            assert part.idle is not None
            assert part.low is not None
            assert part.high is not None
            assert part.energy == part.dynamic + part.idle
            assert part.low <= part.energy <= part.high
            assert 0 <= part.share_ppm <= 1_000_000


class Bench:
    """A meter on a made-up host: 2 processors, nothing busy by itself."""

    def __init__(self, *, options: MeterSettings = QUIET, milliwatts: int = 100_000, idle: int | None = 0) -> None:
        self.clock = ManualClock()
        self.source = FakeSource(self.clock, milliwatts=milliwatts, idle_milliwatts=idle)
        self.usage = FakeUsage(self.clock, load=0)
        self.meter = Meter(clock=self.clock, sources=[self.source], settings=options, usage=self.usage)

    def elsewhere(self, action: Callable[[], MeterWindow]) -> tuple[MeterWindow, int]:
        """Run an action in a thread of its own; returns its window and the thread's identity."""
        found: list[tuple[MeterWindow, int]] = []
        thread = threading.Thread(target=lambda: found.append((action(), threading.get_ident())))
        thread.start()
        thread.join()
        return found[0]


def on_threads(bench: Bench, count: int) -> tuple[list[MeterWindow], list[int], Callable[[], None]]:
    """Open windows on live threads, so that each has an identity of its own; call the last item to end them."""
    leave = threading.Event()
    pool = ThreadPoolExecutor(count)
    ready: list[tuple[MeterWindow, int]] = []
    lock = threading.Lock()
    opened = threading.Barrier(count + 1)

    def work(number: int) -> None:
        with lock:
            ready.append((bench.meter.open(f"run {number}"), threading.get_ident()))
        opened.wait(10)
        leave.wait(10)

    for number in range(count):
        pool.submit(work, number)
    opened.wait(10)

    def end() -> None:
        leave.set()
        pool.shutdown()

    return [window for window, _ in ready], [thread for _, thread in ready], end


# ---- one run ------------------------------------------------------------------------------------------------------


def test_a_run_alone_on_its_host_is_measured_with_grade_a() -> None:
    clock = ManualClock()
    window = fake_meter(clock, settings=QUIET).open("run")
    clock.advance(36)
    reading = window.close()
    check(reading)
    assert str(reading.energy) == "1 Wh"
    assert reading.grade is Grade.A
    assert reading.window.duration == timedelta(seconds=36)
    assert reading.cpu_milliseconds == 36_000
    assert reading.gpu_milliseconds is None
    assert reading.components[0].method == "process_tree"


def test_others_are_reported_and_not_charged() -> None:
    bench = Bench(idle=40_000)
    window = bench.meter.open("run", reserved_cpus=1)
    bench.clock.advance(10)
    bench.usage.spend(3)
    bench.usage.others(9)
    reading = window.close()
    check(reading)
    part = reading.components[0]
    assert joules(part.dynamic) == 600 * 3 / 12
    assert joules(part.idle) == 400 / 2
    assert joules(reading.other) == 450
    assert joules(reading.unowned_idle) == 200
    assert reading.grade is Grade.B


@pytest.mark.parametrize(
    ("policy", "reserved", "quota", "idle_joules"),
    [
        (IdlePolicy.RESERVED, None, None, 200.0),
        (IdlePolicy.RESERVED, 2, None, 400.0),
        (IdlePolicy.RESERVED, 64, None, 400.0),
        (IdlePolicy.RESERVED, None, 500, 100.0),
        (IdlePolicy.ACTIVE, None, None, 400.0),
        (IdlePolicy.NONE, 2, None, 0.0),
    ],
)
def test_idle_policies(policy: IdlePolicy, reserved: int | None, quota: int | None, idle_joules: float) -> None:
    bench = Bench(options=MeterSettings(background=False, idle_policy=policy), idle=40_000)
    bench.usage.quota_milli_cpus = quota
    window = bench.meter.open("run", reserved_cpus=reserved)
    bench.clock.advance(10)
    bench.usage.spend(5)
    reading = window.close()
    check(reading)
    assert joules(reading.components[0].idle) == idle_joules


def test_close_is_idempotent_and_safe_from_several_threads() -> None:
    clock = ManualClock()
    window = fake_meter(clock, settings=QUIET).open("run")
    clock.advance(5)
    with ThreadPoolExecutor(4) as pool:
        readings = list(pool.map(lambda _: window.close(), range(8)))
    assert all(reading is readings[0] for reading in readings)
    clock.advance(5)
    assert window.close() is readings[0]
    assert window.reading is readings[0]


def test_progress_gives_energy_and_recent_power() -> None:
    bench = Bench()
    window = bench.meter.open("run")
    bench.clock.advance(10)
    bench.usage.spend(1)
    first = window.progress()
    assert (joules(first.energy), first.power_milliwatts, first.at) == (1000, 100_000, bench.clock.now())
    bench.source.set_power(20_000)
    bench.clock.advance(10)
    bench.usage.spend(1)
    second = window.progress()
    assert (joules(second.energy), second.power_milliwatts) == (1200, 20_000)
    window.close()
    with pytest.raises(InvalidInput, match="closed"):
        window.progress()


def test_the_window_closes_with_its_block_also_on_an_error() -> None:
    clock = ManualClock()
    meter = fake_meter(clock, settings=QUIET)
    window = meter.open("run")

    def work() -> None:
        with window:
            clock.advance(1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert window.reading is not None
    assert meter.open_windows == 0


# ---- short, long, jumping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.0001, 0.002])
def test_a_run_shorter_than_the_counter_resolves_is_grade_d_with_room_upwards(seconds: float) -> None:
    clock = ManualClock()
    window = fake_meter(clock, settings=QUIET).open("run")
    clock.advance(seconds)
    reading = window.close()
    check(reading)
    assert reading.grade is Grade.D
    assert reading.window.start < reading.window.end
    assert reading.high is not None
    assert reading.high.millijoules > 0
    assert "shorter than" in reading.components[0].reason


def test_times_follow_the_steady_clock_and_a_jump_is_noted() -> None:
    bench = Bench()
    window = bench.meter.open("run")
    bench.clock.advance(10)
    bench.clock.step_wall_clock(timedelta(hours=-2))
    reading = window.close()
    check(reading)
    assert reading.window.duration == timedelta(seconds=10)
    assert any("clock" in note for note in reading.notes)


@given(
    steps=st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**6)), max_size=300),
    most=st.integers(2, 16),
    grain=st.integers(1, 10**10),
)
def test_slices_are_bounded_and_lose_no_energy(steps: list[tuple[int, int]], most: int, grain: int) -> None:
    slices = SliceList(start_ns=5, grain_ns=grain, most=most)
    now = 5
    for elapsed, energy in steps:
        now += elapsed
        slices.add(now, energy)
    assert len(slices) <= most
    spans = slices.spans()
    assert sum(energy for _, _, energy in spans) == sum(energy for _, energy in steps)
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert not spans or (spans[0][0], spans[-1][1]) == (5, now)


def test_a_day_of_heartbeats_stays_bounded() -> None:
    bench = Bench(options=MeterSettings(background=False, most_slices=100))
    window = bench.meter.open("run")
    for _ in range(2_000):
        bench.clock.advance(10)
        bench.meter.beat()
    reading = window.close()
    check(reading)
    assert len(reading.slices) <= 100


# ---- several runs -------------------------------------------------------------------------------------------------


def test_four_overlapping_threads_are_not_counted_four_times() -> None:
    bench = Bench()
    windows, threads, end = on_threads(bench, 4)
    bench.clock.advance(10)
    for thread, seconds in zip(threads, (1, 2, 3, 4), strict=True):
        bench.usage.spend(seconds, thread=thread)
    bench.usage.others(10)
    readings = [window.close() for window in windows]
    end()
    assert [joules(reading.energy) for reading in readings] == [50, 100, 150, 200]
    for reading in readings:
        check(reading)


def test_thread_clocks_that_are_read_late_take_from_the_next_slice_and_nothing_from_the_others() -> None:
    bench = Bench()
    windows, threads, end = on_threads(bench, 2)
    bench.clock.advance(10)
    bench.usage.spend(5, thread=threads[0])
    bench.usage.spend(5, thread=threads[1])
    bench.usage.thread_ns[threads[1]] += 2_000_000_000  # ran on between the reads: the process shows it later
    first = windows[0].close()
    assert first.cpu_milliseconds == 5_000
    bench.clock.advance(10)
    bench.usage.spend(5)
    bench.usage.thread_ns[threads[1]] += 3_000_000_000
    second = windows[1].close()
    end()
    assert second.cpu_milliseconds == 10_000
    check(first)
    check(second)


def test_pool_threads_are_spread_and_the_grade_says_so() -> None:
    bench = Bench()
    windows, threads, end = on_threads(bench, 2)
    bench.clock.advance(10)
    bench.usage.spend(1, thread=threads[0])
    bench.usage.spend(1, thread=threads[1])
    bench.usage.spend(6)  # a BLAS pool
    readings = [window.close() for window in windows]
    end()
    assert [joules(reading.energy) for reading in readings] == [500, 500]
    assert all(reading.grade is Grade.C for reading in readings)
    assert any("pools" in note for note in readings[0].notes)


def test_a_thread_that_reuses_the_number_of_an_ended_one_is_another() -> None:
    bench = Bench()
    windows = [bench.elsewhere(lambda: bench.meter.open("run"))[0] for _ in range(21)]
    assert bench.meter._settler is not None
    identities = {state.thread for state in bench.meter._settler.windows.values()}
    assert len(identities) == 21
    for window in windows:
        check(window.close())


def test_runs_on_one_thread_are_a_group_with_grade_c() -> None:
    bench = Bench()
    windows = [bench.meter.open(f"coroutine {number}", scope=UsageScope.THREAD) for number in range(2)]
    bench.clock.advance(10)
    bench.usage.spend(10, thread=threading.get_ident())
    readings = [window.close() for window in windows]
    assert [joules(reading.energy) for reading in readings] == [500, 500]
    assert all(reading.grade is Grade.C for reading in readings)
    for reading in readings:
        check(reading)


def test_a_run_that_was_alone_at_first_is_charged_for_its_thread_once_it_is_not() -> None:
    bench = Bench()
    windows, threads, end = on_threads(bench, 1)
    bench.clock.advance(10)
    bench.usage.spend(10, thread=threads[0])
    second, thread = bench.elsewhere(lambda: bench.meter.open("second"))
    bench.clock.advance(10)
    bench.usage.spend(4, thread=threads[0])
    bench.usage.spend(6, thread=thread + 1)
    readings = [windows[0].close(), second.close()]
    end()
    for reading in readings:
        check(reading)
    assert sum(joules(reading.energy) for reading in readings) == 2000


def test_a_run_inside_a_run_is_part_of_it_and_never_added() -> None:
    bench = Bench(idle=50_000)
    outer = bench.meter.open("flow")
    bench.clock.advance(10)
    bench.usage.spend(10)
    inner = bench.meter.open("task", parent=outer)
    bench.clock.advance(10)
    bench.usage.spend(10)
    part = inner.close()
    whole = outer.close()
    check(part)
    check(whole)
    assert joules(whole.energy) == 1000 + 2 * 250
    assert joules(part.energy) == 500 + 250
    assert joules(part.siblings) == 0
    assert joules(whole.host_total) == 2000


def test_parallel_tasks_of_a_flow_are_parts_of_it() -> None:
    bench = Bench()
    outer = bench.meter.open("flow")
    inner = [bench.elsewhere(lambda: bench.meter.open("task", parent=outer)) for _ in range(2)]
    bench.clock.advance(10)
    bench.usage.spend(5, thread=inner[0][1])
    readings = [window.close() for window, _ in inner]
    whole = outer.close()
    for reading in [*readings, whole]:
        check(reading)
    assert joules(whole.energy) == 1000
    assert sum(joules(reading.energy) for reading in readings) <= 1000


def test_a_run_inside_outlives_its_parent() -> None:
    bench = Bench()
    outer = bench.meter.open("flow")
    inner = bench.meter.open("task", parent=outer)
    bench.clock.advance(10)
    bench.usage.spend(10)
    assert joules(outer.close().energy) == 1000
    bench.clock.advance(10)
    bench.usage.spend(10)
    reading = inner.close()
    check(reading)
    assert joules(reading.energy) == 2000


def test_same_names_are_different_runs() -> None:
    bench = Bench()
    first = bench.meter.open("same")
    bench.clock.advance(1)
    second = bench.meter.open("same", parent=first)
    bench.clock.advance(1)
    assert second.close().window.duration == timedelta(seconds=1)
    assert first.close().window.duration == timedelta(seconds=2)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["open", "inside", "close", "spend", "others", "beat", "fail", "heal", "power"]),
        st.integers(0, 5),
        st.integers(0, 20_000),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, policy=st.sampled_from(list(IdlePolicy)), idle=st.one_of(st.none(), st.integers(0, 200_000)))
def test_whatever_happens_runs_others_and_idle_add_up(
    actions: list[tuple[str, int, int]], policy: IdlePolicy, idle: int | None
) -> None:
    bench = Bench(options=MeterSettings(background=False, idle_policy=policy), idle=idle)
    memory = FakeSource(bench.clock, milliwatts=9_000, domain="memory", grade=Grade.C)
    bench.meter = Meter(
        clock=bench.clock, sources=[bench.source, memory], settings=bench.meter._settings, usage=bench.usage
    )
    running: list[tuple[MeterWindow, bool]] = []
    always = bench.meter.open("all the time")
    roots = [always]
    readings: list[Reading] = []
    for action, which, amount in actions:
        bench.clock.advance(amount / 1000)
        if action == "open":
            running.append((bench.meter.open("run"), True))
            roots.append(running[-1][0])
        elif action == "inside" and running:
            running.append((bench.meter.open("inside", parent=running[which % len(running)][0]), False))
        elif action == "close" and running:
            readings.append(running.pop(which % len(running))[0].close())
        elif action == "spend":
            bench.usage.spend(amount / 10_000, thread=threading.get_ident() if which % 2 else None)
        elif action == "others":
            bench.usage.others(amount / 10_000)
        elif action == "beat":
            bench.meter.beat()
        elif action == "fail":
            bench.source.fail()
        elif action == "heal":
            bench.source.heal()
        elif action == "power":
            bench.source.set_power(amount * 10)
    readings += [window.close() for window, _ in running]
    whole = always.close()
    for reading in [*readings, whole]:
        if reading.energy is not None:
            check(reading)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 5_000), st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 3_000)),
        min_size=1,
        max_size=20,
    )
)
def test_the_sum_over_runs_is_the_hosts_in_every_slice(steps: list[tuple[int, int, int, int]]) -> None:
    """Two runs over the same interval, settled at every step: their sum and the rest are the host's total."""
    bench = Bench(idle=30_000)
    first = bench.meter.open("first", scope=UsageScope.PROCESS)
    second, ident = bench.elsewhere(lambda: bench.meter.open("second", scope=UsageScope.THREAD))
    start = bench.source.read().millijoules
    for elapsed, own, thread, other in steps:
        bench.clock.advance(elapsed / 1000)
        bench.usage.spend(own / 1000)
        bench.usage.thread_ns[ident] = bench.usage.thread_ns.get(ident, 0) + thread * 1_000_000
        bench.usage.others(other / 1000)
        a, b = first.progress().energy.millijoules, second.progress().energy.millijoules
        assert a + b <= bench.source.read().millijoules - start
    last = bench.source.read().millijoules - start
    one, two = first.close(), second.close()
    check(one)
    check(two)
    assert one.host_total is not None
    assert two.host_total is not None
    assert one.host_total.millijoules == two.host_total.millijoules == last
    assert one.siblings == two.energy
    assert two.siblings == one.energy


# ---- faults -------------------------------------------------------------------------------------------------------


def test_a_source_that_fails_for_a_while_degrades_the_reading_and_never_the_run() -> None:
    bench = Bench()
    window = bench.meter.open("run")
    for failing in (False, True, False, False):
        if failing:
            bench.source.fail("permission was withdrawn.")
        else:
            bench.source.heal()
        bench.clock.advance(10)
        bench.usage.spend(1)
        bench.meter.beat()
    reading = window.close()
    check(reading)
    part = reading.components[0]
    assert joules(part.energy) == 2000  # the failing slice and the one without a beginning are left out
    assert part.grade is Grade.D
    assert "permission was withdrawn" in part.reason
    assert part.high is not None
    assert joules(part.high) >= 4000


def test_a_source_that_never_works_gives_null_with_the_reason() -> None:
    bench = Bench()
    bench.source.fail("the counters may be read by root only.")
    window = bench.meter.open("run")
    bench.clock.advance(10)
    assert not window.progress().known
    reading = window.close()
    assert reading.energy is None
    assert reading.grade is None
    assert reading.host_total is None
    assert reading.slices == ()
    assert "root only" in reading.reason
    assert reading.components[0].energy is None


@pytest.mark.parametrize("jump_millijoules", [-5_000_000, 10**12])
def test_an_impossible_jump_is_left_out(jump_millijoules: int) -> None:
    bench = Bench()
    window = bench.meter.open("run")
    bench.clock.advance(100)
    bench.usage.spend(100)
    bench.meter.beat()
    bench.source.add(jump_millijoules)
    bench.clock.advance(1)
    bench.usage.spend(1)
    bench.meter.beat()
    bench.clock.advance(100)
    bench.usage.spend(100)
    reading = window.close()
    check(reading)
    assert joules(reading.energy) == 20_000
    assert reading.grade is Grade.B
    assert reading.components[0].reason


def test_strict_raises_and_closes_all_the_same() -> None:
    bench = Bench(options=MeterSettings(background=False, strict=True))
    window = bench.meter.open("run")
    bench.source.fail("it broke.")
    bench.clock.advance(1)
    with pytest.raises(MeterUnavailable, match="it broke"):
        window.close()
    assert bench.meter.open_windows == 0
    assert window.close().energy is None


def test_strict_without_any_source_refuses_to_open() -> None:
    clock = ManualClock()
    options = MeterSettings(background=False, strict=True)
    meter = Meter(clock=clock, sources=[], settings=options, usage=FakeUsage(clock))
    with pytest.raises(MeterUnavailable, match="strict"):
        meter.open("run")


@pytest.mark.parametrize("reserved", [0, -1, True])
def test_reserved_processors_are_checked(reserved: int) -> None:
    with pytest.raises(InvalidInput, match="reserved_cpus"):
        fake_meter(ManualClock(), settings=QUIET).open("run", reserved_cpus=reserved)


@pytest.mark.parametrize(
    "options",
    [
        {"sources": ("coal",)},
        {"sources": ()},
        {"sources": ("auto", "rapl")},
        {"heartbeat_seconds": 0},
        {"heartbeat_seconds": 31},
        {"heartbeat_seconds": float("nan")},
        {"cross_check": "guess"},
        {"most_slices": 1},
        {"idle_milliwatts": {"cpu": -1}},
        {"idle_milliwatts": {"cpu": 1.5}},
    ],
)
def test_settings_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        MeterSettings(**options)  # type: ignore[arg-type]


def test_unknown_busy_time_is_said() -> None:
    bench = Bench()
    bench.usage.busy_known = False
    window = bench.meter.open("run")
    bench.clock.advance(10)
    bench.usage.spend(1)
    reading = window.close()
    check(reading)
    assert reading.grade is Grade.C
    assert "busy time is unknown" in reading.components[0].reason


def test_the_idle_power_is_learnt_from_quiet_moments() -> None:
    bench = Bench(idle=60_000)
    window = bench.meter.open("run", reserved_cpus=2)
    bench.source.set_power(30_000)
    bench.clock.advance(10)
    bench.meter.beat()
    bench.source.set_power(90_000)
    bench.clock.advance(10)
    bench.usage.spend(20)
    reading = window.close()
    check(reading)
    assert joules(reading.components[0].idle) == 300 + 300
    assert joules(reading.components[0].dynamic) == 600


# ---- memory and GPUs ----------------------------------------------------------------------------------------------


def test_memory_goes_by_bytes_held() -> None:
    clock = ManualClock()
    usage = FakeUsage(clock, resident_bytes=1_000_000_000, used_bytes=4_000_000_000)
    source = FakeSource(clock, milliwatts=8_000, domain="memory", grade=Grade.C)
    meter = Meter(clock=clock, sources=[source], settings=QUIET, usage=usage)
    window = meter.open("run")
    clock.advance(10)
    reading = window.close()
    check(reading)
    assert joules(reading.energy) == 20
    assert joules(reading.other) == 60
    assert reading.grade is Grade.C


def gpu_meter(gpu: FakeGpu, visible: str = "0") -> tuple[ManualClock, Meter]:
    from cagg.energy.sources.nvml import Nvml, find_nvml

    clock = ManualClock()
    sources = find_nvml(clock, nvml=Nvml(FakePynvml([gpu])), environment={"CUDA_VISIBLE_DEVICES": visible})
    return clock, Meter(clock=clock, sources=sources, settings=QUIET, usage=FakeUsage(clock))


def test_a_gpu_held_alone_is_all_ours() -> None:
    gpu = FakeGpu("GPU-1")
    clock, meter = gpu_meter(gpu)
    gpu.pids = [1000]
    window = meter.open("run")
    clock.advance(10)
    gpu.energy_millijoules = 3_000_000
    reading = window.close()
    check(reading)
    assert joules(reading.energy) == 3000
    assert reading.grade is Grade.A
    assert reading.gpu_milliseconds == 10_000


def test_a_gpu_of_others_is_other() -> None:
    gpu = FakeGpu("GPU-1")
    clock, meter = gpu_meter(gpu)
    gpu.pids = [os.getpid()]  # alive, but not in the fake process tree
    window = meter.open("run")
    clock.advance(10)
    gpu.energy_millijoules = 3_000_000
    reading = window.close()
    check(reading)
    assert joules(reading.energy) == 0
    assert joules(reading.other) == 3000
    assert reading.gpu_milliseconds == 0


def test_a_gpu_without_a_counter_quickens_the_heartbeat() -> None:
    gpu = FakeGpu("GPU-old", energy_millijoules=None)
    _, meter = gpu_meter(gpu)
    meter.open("run").close()
    assert meter.heartbeat_seconds == 1.0


# ---- choosing sources ---------------------------------------------------------------------------------------------


def test_what_cannot_be_measured_is_null_with_a_reason_beside_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    gone = Missing(domain="gpu", source="nvml", reason='run pip install "cagg[gpu]".')
    selection = Selection(sources=(bench.source,), missing=(gone,), notes=("a note",))
    monkeypatch.setattr("cagg.energy.selection.select_sources", lambda *_: selection)
    meter = Meter(clock=bench.clock, settings=QUIET, usage=bench.usage)
    window = meter.open("run")
    bench.clock.advance(10)
    reading = window.close()
    check(reading)
    lost = [part for part in reading.components if part.energy is None]
    assert [(part.domain, part.reason) for part in lost] == [("gpu", 'run pip install "cagg[gpu]".')]
    assert "a note" in reading.notes


def test_a_host_that_shows_nothing_has_no_energy_at_all(tmp_path: object) -> None:
    clock = ManualClock()
    usage = FakeUsage(clock, cpus=None)
    usage.used_bytes = 0

    class Blind(FakeUsage):
        def sample(self):  # type: ignore[no-untyped-def]
            from dataclasses import replace

            return replace(super().sample(), used_bytes=None, busy_ns=None)

    blind = Blind(clock, cpus=None)
    finder = SourceFinder(clock=clock, usage=blind, settings=QUIET, root=tmp_path)  # type: ignore[arg-type]
    selection = select_sources(QUIET, finder)
    assert selection.sources == ()
    assert {miss.domain for miss in selection.missing} == {"cpu", "memory"}
    assert all(miss.reason for miss in selection.missing)


def test_rapl_that_may_not_be_read_is_replaced_by_the_model_and_noted(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise MeterUnavailable("the energy counters may be read by root only; run 'sudo chmod a+r ...'.")

    monkeypatch.setattr("cagg.energy.selection.find_rapl", denied)
    clock = ManualClock()
    finder = SourceFinder(clock=clock, usage=FakeUsage(clock), settings=QUIET, root=tmp_path)  # type: ignore[arg-type]
    selection = select_sources(QUIET, finder)
    assert {source.name for source in selection.sources} == {"cpu_model", "memory_model"}
    assert any("chmod" in note for note in selection.notes)


def test_probe_answers_for_every_source() -> None:
    answers = probe(MeterSettings(), SystemClock())
    assert [name for name, _, _ in answers] == list(SOURCE_NAMES)
    assert all(reason for _, _, reason in answers)


# ---- the process --------------------------------------------------------------------------------------------------


def test_the_shared_meter_is_one_per_process_and_settings_wait_for_open_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Meter, "_shared", {})
    clock = SystemClock()
    first = Meter.shared(QUIET, clock)
    assert Meter.shared(MeterSettings(background=False), SystemClock()) is first
    window = first.open("run")
    other = MeterSettings(background=False, idle_policy=IdlePolicy.NONE)
    assert Meter.shared(other, clock) is first
    window.close()
    assert Meter.shared(other, clock) is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_reports_nothing_of_its_parents_and_meters_its_own() -> None:
    script = """
import os, sys
from cagg.clock import SystemClock
from cagg.energy.meter import Meter, MeterSettings
clock = SystemClock()
meter = Meter.shared(MeterSettings(heartbeat_seconds=0.01), clock)
window = meter.open("parent's")
pid = os.fork()
if pid == 0:
    reading = window.close()
    assert reading.energy is None and "forked child" in reading.reason, reading
    assert not window.progress().known
    own = Meter.shared(MeterSettings(heartbeat_seconds=0.01), clock)
    assert own is not meter
    child = own.open("child's", parent=window)
    assert child.close().window is not None
    inherited = meter.open("on the inherited object").close()
    assert inherited.siblings is None or inherited.siblings.millijoules == 0
    os._exit(0)
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert window.close().energy is not None
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=child_environment()
    )
    assert done.stdout == "ok\n", done.stderr


def child_environment() -> dict[str, str]:
    import cagg

    root = os.path.dirname(os.path.dirname(cagg.__file__))  # noqa: PTH120 - a search path
    return {**os.environ, "PYTHONPATH": root}


def test_importing_starts_nothing_and_pulls_in_nothing_heavy() -> None:
    script = """
import signal, sys, threading
before = {number: signal.getsignal(number) for number in signal.valid_signals()}
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event in ("open", "socket.connect") else None)
import cagg.energy.meter
assert threading.active_count() == 1
heavy = {"pynvml", "codecarbon", "numpy", "pandas", "psutil", "sqlalchemy", "httpx", "pendulum"} & set(sys.modules)
assert not heavy, heavy
strange = [path for path in opened if str(path).startswith(("/proc", "/sys", "/dev"))]
assert not strange, strange
assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
from cagg.clock import SystemClock
meter = cagg.energy.meter.Meter.shared(cagg.energy.meter.MeterSettings(), SystemClock())
assert threading.active_count() == 1
window = meter.open("run")
assert [thread.name for thread in threading.enumerate()][1:] == ["cagg-heartbeat"]
assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}
assert "pynvml" not in sys.modules or __import__("os").path.exists("/dev/nvidiactl")
window.close()
print("ok")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=child_environment()
    )
    assert done.stdout == "ok\n", done.stderr


# ---- heartbeat ----------------------------------------------------------------------------------------------------


def beating(**options: object) -> tuple[ManualClock, Meter]:
    clock = ManualClock()
    return clock, fake_meter(clock, settings=MeterSettings(heartbeat_seconds=10, **options))  # type: ignore[arg-type]


def test_the_heartbeat_settles_and_calls_back_while_a_window_is_open() -> None:
    clock, meter = beating()
    seen: list[float] = []
    window = meter.open("run", on_beat=lambda open_window: seen.append(joules(open_window.progress().energy)))
    clock.advance(35)
    assert seen == [1000, 2000, 3000]
    window.close()
    clock.advance(60)
    assert seen == [1000, 2000, 3000]


def test_a_beat_that_the_store_refuses_is_noted_and_the_next_one_comes() -> None:
    clock, meter = beating()
    beats: list[int] = []

    def refuse_once(_: MeterWindow) -> None:
        beats.append(len(beats))
        if len(beats) == 1:
            raise StoreUnavailable("the store is away.")

    window = meter.open("run", on_beat=refuse_once)
    clock.advance(25)
    assert len(beats) == 2
    assert any("the store is away" in note for note in window.close().notes)


def test_a_broken_callback_is_heard_of_and_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, meter = beating()
    heard: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda details: heard.append(details.exc_type))
    calls: list[str] = []

    def broken(_: MeterWindow) -> None:
        calls.append("broken")
        raise ZeroDivisionError

    first = meter.open("broken", on_beat=broken)
    second = meter.open("sound", on_beat=lambda _: calls.append("sound"))
    clock.advance(11)
    clock.advance(30)
    first.close()
    second.close()
    assert heard == [ZeroDivisionError]
    assert calls.count("broken") == 1
    assert calls.count("sound") >= 1


def test_closing_from_the_callback_is_allowed() -> None:
    clock, meter = beating()
    readings: list[Reading] = []
    window = meter.open("run", on_beat=lambda open_window: readings.append(open_window.close()))
    clock.advance(10)
    assert window.reading is not None
    assert meter.open_windows == 0


def test_no_signal_handler_changes() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    clock, meter = beating()
    with meter.open("run"):
        clock.advance(20)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
