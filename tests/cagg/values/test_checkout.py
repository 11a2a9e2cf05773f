"""Which code runs here: commit, whether files differ from it, and the digest of the difference."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cagg import checkout
from cagg.checkout import CodeVersion, Dirty, look_up

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Git in a fresh checkout with one commit, without the settings of whoever runs the tests."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]

    def run(*arguments: str) -> str:
        done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout

    run("init", "--quiet")
    (folder / "code.py").write_text("a = 1\n")
    run("add", ".")
    run("commit", "--quiet", "-m", "first")
    return run


def at(tmp_path: Path, **environ: str) -> CodeVersion:
    return look_up(tmp_path / "work", {"PATH": os.environ["PATH"], **environ})


def test_a_clean_checkout_has_a_commit(tmp_path: Path, git: Git) -> None:
    head = git("rev-parse", "HEAD").strip()
    assert at(tmp_path) == CodeVersion(commit=head, dirty=Dirty.FALSE)
    assert at(tmp_path).facts() == {"commit": head, "dirty": "false"}


def test_what_differs_is_told_by_its_digest(tmp_path: Path, git: Git) -> None:
    (tmp_path / "work" / "code.py").write_text("a = 2\n")
    printed = git("diff", "--binary", "--full-index", "--no-renames", "HEAD").encode()
    found = at(tmp_path)
    assert found.dirty is Dirty.TRUE
    assert found.diff_sha256 == hashlib.sha256(printed).hexdigest()
    assert found.reason == ""
    git("add", ".")  # what is staged differs as well
    assert at(tmp_path) == found
    (tmp_path / "work" / "code.py").write_text("a = 3\n")
    assert at(tmp_path).diff_sha256 != found.diff_sha256


def test_the_digest_does_not_depend_on_a_persons_settings(tmp_path: Path, git: Git) -> None:
    (tmp_path / "work" / "code.py").write_text("a = 2\n")
    plain = at(tmp_path)
    for setting in ("diff.noprefix", "diff.mnemonicPrefix", "color.ui"):
        git("config", setting, "always" if setting == "color.ui" else "true")
    git("config", "diff.algorithm", "patience")
    git("config", "diff.context", "9")
    assert at(tmp_path) == plain


def test_files_that_git_does_not_track_are_not_looked_at(tmp_path: Path, git: Git) -> None:
    (tmp_path / "work" / "data.bin").write_text("x")
    assert at(tmp_path).dirty is Dirty.FALSE


def test_a_folder_inside_and_a_linked_work_tree_are_found(tmp_path: Path, git: Git) -> None:
    inside = tmp_path / "work" / "a" / "b"
    inside.mkdir(parents=True)
    git("worktree", "add", "--quiet", str(tmp_path / "linked"), "HEAD")
    head = git("rev-parse", "HEAD").strip()
    for folder in (inside, tmp_path / "linked"):
        assert look_up(folder, os.environ).commit == head


def test_without_a_checkout_the_reason_is_said_and_no_path(tmp_path: Path) -> None:
    found = look_up(tmp_path, {})
    assert (found.commit, found.dirty, found.diff_sha256) == (None, Dirty.UNKNOWN, None)
    assert "no git checkout" in found.reason
    assert str(tmp_path) not in found.reason


def test_an_image_without_its_checkout_says_the_commit(tmp_path: Path) -> None:
    found = look_up(tmp_path, {"CAGG_COMMIT": "A" * 40})
    assert (found.commit, found.dirty) == ("a" * 40, Dirty.UNKNOWN)
    assert "CAGG_COMMIT" in found.reason
    assert look_up(tmp_path, {"CAGG_COMMIT": "main"}).commit is None


def test_a_real_checkout_is_stronger_than_the_variable(tmp_path: Path, git: Git) -> None:
    assert at(tmp_path, CAGG_COMMIT="a" * 40).commit == git("rev-parse", "HEAD").strip()


def test_a_checkout_without_a_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert "no commit yet" in look_up(tmp_path, os.environ).reason


def test_without_git_nothing_fails(tmp_path: Path, git: Git) -> None:
    found = look_up(tmp_path / "work", {"PATH": str(tmp_path)})
    assert (found.commit, found.reason) == (None, "git is not installed")


def test_a_broken_checkout_is_unknown(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    found = look_up(tmp_path, os.environ)
    assert (found.commit, found.dirty) == (None, Dirty.UNKNOWN)
    assert "could not read the checkout" in found.reason


def test_a_git_that_hangs_is_ended(tmp_path: Path, git: Git) -> None:
    """Its children too: they would keep the pipe open."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nsleep 600 &\nsleep 600\n")
    (programs / "git").chmod(stat.S_IRWXU)
    path = f"{programs}:{os.environ['PATH']}"
    found = look_up(tmp_path / "work", {"PATH": path}, limit_seconds=0.3)
    assert "took longer than 0.3 s" in found.reason
    assert found.dirty is Dirty.UNKNOWN
    (pid,) = (tmp_path / "pids").read_text().split()
    assert _is_gone(int(pid))


def _is_gone(group: int) -> bool:
    for _ in range(1_000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        threading.Event().wait(0.01)
    return False


def test_neither_hooks_nor_external_diffs_run(tmp_path: Path, git: Git) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    trap.chmod(stat.S_IRWXU)
    (tmp_path / "work" / ".gitattributes").write_text("*.py diff=trap\n")
    for setting in ("diff.external", "diff.trap.textconv", "diff.trap.command", "core.fsmonitor", "core.pager"):
        git("config", setting, str(trap))
    (tmp_path / "work" / "code.py").write_text("a = 2\n")
    assert at(tmp_path).diff_sha256 is not None
    assert not (tmp_path / "ran").exists()


def test_the_look_leaves_the_checkout_alone(tmp_path: Path, git: Git) -> None:
    index = tmp_path / "work" / ".git" / "index"
    os.utime(tmp_path / "work" / "code.py", (1, 1))  # git would like to write down the new time
    before = index.read_bytes()
    assert at(tmp_path).dirty is Dirty.FALSE
    assert index.read_bytes() == before
    assert not index.with_suffix(".lock").exists()


def test_it_is_looked_up_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def count(start: Path, environ: object) -> CodeVersion:
        asked.append(start)
        return CodeVersion(commit="a" * 40)

    monkeypatch.setattr(checkout, "_found", [])
    monkeypatch.setattr(checkout, "look_up", count)
    assert [checkout.code_version().commit for _ in range(3)] == ["a" * 40] * 3
    assert len(asked) == 1
