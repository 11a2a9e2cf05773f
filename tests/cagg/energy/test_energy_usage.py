"""Processor time: exited, live, detached and exec'd children, reused process ids, threads, control groups."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cagg.energy.cgroups import own_cgroup, quota_milli_cpus
from cagg.energy.host import HostBusy, SystemUsage
from cagg.energy.processes import ProcessStat
from cagg.energy.usage import CgroupUsage, ProcessTreeUsage, ThreadUsage
from cagg.errors import MeterUnavailable

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which this system does not have")
MILLISECOND = 1_000_000
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


DOUBLE_FORK = """
import os, sys, time
if os.fork():
    sys.stdin.read(1)
    os._exit(0)
print(os.getpid(), flush=True)
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.001)
end = time.process_time() + 0.15
while time.process_time() < end:
    pass
print("done", flush=True)
time.sleep(60)
"""


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Table:
    """Processes that a test makes up."""

    def __init__(self) -> None:
        self.processes: dict[int, ProcessStat] = {}

    def has_children(self) -> bool:
        return bool(self.processes)

    def children(self, pid: int) -> list[int]:
        return [child for child, stat in self.processes.items() if stat.parent == pid]

    def stat(self, pid: int) -> ProcessStat | None:
        return self.processes.get(pid)

    def put(self, pid: int, *, parent: int = 1, start: int = 1, cpu: int = 0, reaped: int = 0) -> None:
        self.processes[pid] = ProcessStat(
            parent=parent, start_ticks=start, cpu_ns=cpu, reaped_ns=reaped, resident_bytes=100
        )


class Tree:
    """A tree reader over a made-up table; the root is process 1."""

    def __init__(self) -> None:
        self.table = Table()
        self.own = 0
        self.reaped = 0
        self.reader = ProcessTreeUsage(table=self.table, own_times=lambda: (self.own, self.reaped), pid=1)

    def used(self) -> int:
        return self.reader.cpu_ns()


def test_a_live_child_counts_and_is_not_counted_again_when_it_is_reaped() -> None:
    tree = Tree()
    tree.table.put(5, cpu=100)
    assert tree.used() == 100
    tree.table.processes.clear()
    tree.reaped = 130
    assert tree.used() == 130


def test_a_child_that_came_and_went_between_two_looks_counts() -> None:
    tree = Tree()
    tree.reaped = 70
    assert tree.used() == 70


def test_a_grandchild_reaped_by_its_parent_counts_once() -> None:
    tree = Tree()
    tree.table.put(5, cpu=10)
    tree.table.put(6, parent=5, cpu=50)
    assert tree.used() == 60
    del tree.table.processes[6]
    tree.table.put(5, cpu=20, reaped=80)
    assert tree.used() == 100
    tree.table.processes.clear()
    tree.reaped = 25 + 80
    assert tree.used() == 105


def test_a_reused_process_id_is_another_process() -> None:
    tree = Tree()
    tree.table.put(5, start=1, cpu=100)
    assert tree.used() == 100
    tree.table.put(5, start=2, cpu=30)
    tree.reaped = 110
    assert tree.used() == 140


def test_an_orphan_is_followed_and_the_sum_never_falls() -> None:
    tree = Tree()
    tree.table.put(5, cpu=10)
    tree.table.put(6, parent=5, cpu=50)
    assert tree.used() == 60
    del tree.table.processes[5]
    tree.reaped = 10
    tree.table.put(6, parent=0, cpu=90)  # adopted by init
    assert tree.used() == 100
    tree.table.processes.clear()  # init reaps it: nothing arrives in our RUSAGE_CHILDREN
    assert tree.used() == 100
    tree.reaped = 30
    assert tree.used() == 120


def test_a_stranger_with_the_id_of_a_child_is_not_ours() -> None:
    tree = Tree()
    tree.table.put(5, cpu=10, start=3)
    assert tree.used() == 10
    tree.table.put(5, parent=0, cpu=9999, start=8)
    tree.reaped = 10
    assert tree.used() == 10


@LINUX
def test_exited_children_count() -> None:
    reader = ProcessTreeUsage()
    for _ in range(2):
        subprocess.run([sys.executable, "-S", "-c", BURN.format(seconds=0.1)], check=True)
    assert 200 * MILLISECOND <= reader.cpu_ns() < 1_500 * MILLISECOND


@LINUX
def test_live_and_execed_children_count_while_they_run() -> None:
    reader = ProcessTreeUsage()
    script = "import time,sys\n" + BURN.format(seconds=0.15) + "print('x', flush=True)\nsys.stdin.read()"
    command = ["sh", "-c", 'exec "$0" -S -c "$1"', sys.executable, script]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(1)
    alive = reader.cpu_ns()
    assert alive >= 130 * MILLISECOND
    assert child.pid in reader.pids()
    resident = reader.resident_bytes()
    assert resident is not None
    assert resident > 5_000_000
    child.communicate()
    assert alive <= reader.cpu_ns() < alive + 300 * MILLISECOND


@LINUX
def test_a_double_forked_child_counts_once_it_was_seen() -> None:
    script = DOUBLE_FORK
    reader = ProcessTreeUsage()
    child = subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    orphan = int(child.stdout.readline())
    before = reader.cpu_ns()
    child.stdin.write(b"x")
    child.stdin.flush()
    child.wait()
    assert child.stdout.readline() == b"done\n"
    assert reader.cpu_ns() - before >= 130 * MILLISECOND
    os.kill(orphan, 9)
    child.stdin.close()
    child.stdout.close()


@LINUX
def test_a_thread_is_read_from_another_and_keeps_its_last_value() -> None:
    readers: list[ThreadUsage] = []
    worked, leave = threading.Event(), threading.Event()

    def work() -> None:
        readers.append(ThreadUsage())
        burn(0.05)
        worked.set()
        leave.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert worked.wait(10)
    used = readers[0].cpu_ns()
    assert 50 * MILLISECOND <= used < 500 * MILLISECOND
    leave.set()
    thread.join()
    burn(0.05)
    assert readers[0].cpu_ns() - used < 20 * MILLISECOND


def test_busy_time_knows_our_part_exactly_and_that_of_others_from_the_ticks(tmp_path: Path) -> None:
    def show(user_ticks: int) -> None:
        (tmp_path / "stat").write_text(f"cpu {user_ticks} 0 0 900 50 0 0 77 0 0\ncpu0 1 2 3\n")

    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    busy = HostBusy(tmp_path)
    show(100)
    assert busy.busy_ns(5_000) == 0
    assert busy.busy_ns(5_700) == 700  # less than a tick of ours shows at once
    show(102)
    assert busy.busy_ns(5_700) == 2 * tick
    assert busy.busy_ns(5_700 + tick) == 2 * tick + tick - 700 + 700
    (tmp_path / "stat").unlink()
    assert busy.busy_ns(0) is None


# ---- control groups -----------------------------------------------------------------------------------------------


def fake_host(root: Path, *, membership: str, mounts: str) -> Path:
    proc = root / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(membership)
    (proc / "self" / "mountinfo").write_text(mounts)
    return proc


def v2_host(root: Path, path: str = "/job", mount_root: str = "/") -> Path:
    mount = root / "cg"
    mount.mkdir(parents=True, exist_ok=True)
    return fake_host(
        root, membership=f"0::{path}\n", mounts=f"30 25 0:26 {mount_root} {mount} rw - cgroup2 cgroup2 rw\n"
    )


def v2_group(directory: Path, *, pids: list[int], usec: int = 0, quota: str = "max 100000") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.type").write_text("domain\n")
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (directory / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec 1\n")
    (directory / "cpu.max").write_text(quota + "\n")


def test_a_group_that_is_ours_alone_is_used(tmp_path: Path) -> None:
    proc = v2_host(tmp_path)
    v2_group(tmp_path / "cg" / "job", pids=[10, 11], usec=500)
    group = own_cgroup(proc)
    assert group is not None
    assert not group.is_root
    assert group.exclusively_ours({10, 11}, proc)
    reader = CgroupUsage(group.directory)
    v2_group(tmp_path / "cg" / "job", pids=[10, 11], usec=700)
    assert reader.cpu_ns() == 200_000


def test_a_group_with_strangers_is_not_ours_but_an_init_shim_is_no_stranger(tmp_path: Path) -> None:
    proc = v2_host(tmp_path)
    v2_group(tmp_path / "cg" / "job", pids=[1, 10])
    (proc / "1").mkdir()
    (proc / "1" / "comm").write_text("airflow\n")
    group = own_cgroup(proc)
    assert group is not None
    assert not group.exclusively_ours({10}, proc)
    (proc / "1" / "comm").write_text("tini\n")
    assert group.exclusively_ours({10}, proc)


def test_strangers_in_a_group_below_count_too(tmp_path: Path) -> None:
    proc = v2_host(tmp_path)
    v2_group(tmp_path / "cg" / "job", pids=[10])
    v2_group(tmp_path / "cg" / "job" / "other", pids=[66])
    (proc / "66").mkdir()
    (proc / "66" / "comm").write_text("python\n")
    group = own_cgroup(proc)
    assert group is not None
    assert not group.exclusively_ours({10}, proc)


def test_the_root_group_is_never_ours(tmp_path: Path) -> None:
    proc = v2_host(tmp_path, path="/")
    v2_group(tmp_path / "cg", pids=[10])
    (tmp_path / "cg" / "cgroup.type").unlink()
    group = own_cgroup(proc)
    assert group is not None
    assert group.is_root
    assert not group.exclusively_ours({10}, proc)


def test_a_container_sees_its_group_as_the_mount_itself(tmp_path: Path) -> None:
    proc = v2_host(tmp_path, path="/docker/abc", mount_root="/docker/abc")
    v2_group(tmp_path / "cg", pids=[10], quota="150000 100000")
    group = own_cgroup(proc)
    assert group is not None
    assert group.directory.resolve() == (tmp_path / "cg").resolve()
    assert quota_milli_cpus(group) == 1_500


def test_the_tightest_limit_above_counts(tmp_path: Path) -> None:
    proc = v2_host(tmp_path, path="/slice/job")
    v2_group(tmp_path / "cg" / "slice", pids=[], quota="200000 100000")
    v2_group(tmp_path / "cg" / "slice" / "job", pids=[10], quota="max 100000")
    assert quota_milli_cpus(own_cgroup(proc)) == 2_000
    assert quota_milli_cpus(None) is None


def test_version_1_is_found_beside_a_version_2_root(tmp_path: Path) -> None:
    group_dir = tmp_path / "cpuacct" / "job"
    group_dir.mkdir(parents=True)
    (group_dir / "cpuacct.usage").write_text("1000\n")
    (group_dir / "cgroup.procs").write_text("10\n")
    (group_dir / "cpu.cfs_quota_us").write_text("50000\n")
    (group_dir / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified" / "cpu.stat").write_text("usage_usec 5\n")
    proc = fake_host(
        tmp_path,
        membership="4:cpu,cpuacct:/job\n0::/\n",
        mounts=f"30 25 0:26 / {tmp_path}/cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        f"31 25 0:27 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n",
    )
    group = own_cgroup(proc)
    assert group is not None
    assert group.directory == group_dir
    assert quota_milli_cpus(group) == 500
    reader = CgroupUsage(group.directory)
    (group_dir / "cpuacct.usage").write_text("1600\n")
    assert reader.cpu_ns() == 600
    (group_dir / "cpuacct.usage").unlink()
    assert reader.cpu_ns() == 600


def test_a_group_without_accounting_says_so(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("nr_periods 3\n")
    with pytest.raises(MeterUnavailable, match="usage_usec"):
        CgroupUsage(tmp_path)


@LINUX
def test_this_machine_can_be_read() -> None:
    usage = SystemUsage()
    first = usage.sample()
    burn(0.05)
    second = usage.sample()
    assert second.own_ns - first.own_ns >= 50 * MILLISECOND
    assert first.busy_ns is not None
    assert second.busy_ns is not None
    assert second.busy_ns - first.busy_ns >= second.own_ns - first.own_ns
    assert os.getpid() in second.pids
    assert second.resident_bytes
    assert second.used_bytes
    assert second.resident_bytes <= second.used_bytes * 2
    assert usage.latest() == second
