"""Checkpoints outside of the store: published once, never rewritten, read back from whatever holds them."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.composition import Components, Grid
from cagg.errors import ConfigurationError, InvalidInput
from cagg.ledger.anchors import collect, line_of, newest, of_log, publish
from cagg.ledger.entry import append
from cagg.ledger.notes import TreeHead, checkpoint_text, signed_note, verifier_key
from cagg.ledger.sequencer import sequence
from cagg.ports import Checkpoint, Store
from cagg.settings import Settings, load_settings
from cagg.spool import Spool
from cagg.steps.signing import sign_and_publish
from cagg.steps.witness import untold_checkpoint
from cagg.testing import ManualClock
from cagg.testing.attacks import unlock
from cagg.testing.stores import MemorySigner, draft

NAME = "example.org/test"


def made(size: int, *, root: int = 1, name: str = NAME) -> Checkpoint:
    signer = MemorySigner(name)
    head = TreeHead(origin=name, size=size, root=bytes([root]) * 32)
    text = checkpoint_text(head)
    note = signed_note(text, signer.sign(text.encode()), verifier_key(signer))
    return Checkpoint(size=size, root=head.root, note=note, created_at=datetime(1970, 1, 1, tzinfo=UTC))


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git work tree with a commit of somebody's own."""
    folder = tmp_path / "tree"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(folder))
    (folder / "README").write_text("mine\n")
    git(folder, "add", "README")
    git(folder, "commit", "--quiet", "-m", "mine")
    return folder


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, tree: Path) -> str:
    """A place of each kind."""
    for name in ("a", "worm"):
        (tmp_path / name).mkdir()
    return {"file": f"file:{tmp_path}/a/notes", "dir": f"dir:{tmp_path}/worm", "git": f"git:{tree}"}[request.param]


every_place = pytest.mark.parametrize("place", ["file", "dir", "git"], indirect=True)


# ---- every kind of place --------------------------------------------------------------------------------------------


@every_place
def test_what_was_published_comes_back(place: str) -> None:
    for size in (3, 5, 300):
        assert publish([place], made(size)) == ()
    found = collect([place])
    assert found.problems == ()
    assert list(found.checkpoints) == [made(3), made(5), made(300)]
    assert collect([place.partition(":")[2]]) == found, "a bare path is taken for what is there"
    assert newest([place], NAME) == (made(300),)
    assert newest([place], "other") == ()


@every_place
def test_publishing_again_changes_nothing(place: str, tmp_path: Path) -> None:
    publish([place], made(3))
    publish([place], made(5))
    before = _bytes(tmp_path)
    assert publish([place], made(5)) == ()
    assert _bytes(tmp_path) == before


def _bytes(folder: Path) -> dict[str, bytes]:
    inside = (path for path in folder.rglob("*") if path.is_file() and path.name != "index")
    return {str(path): path.read_bytes() for path in inside}


@every_place
def test_a_place_that_was_out_of_reach_catches_up(place: str, tmp_path: Path) -> None:
    path = Path(place.partition(":")[2])
    publish([place], made(3))
    away = path.rename(tmp_path / "away")
    path.symlink_to(tmp_path / "missing" / "there")  # a mount that is gone
    (problem,) = publish([place, "log"], made(4))
    assert place in problem
    assert "did not get to the anchor" in problem
    assert (newest([place], NAME), len(collect([place]).problems)) == ((), 1)
    path.unlink()
    away.rename(path)
    assert publish([place], made(5)) == ()
    assert [item.size for item in collect([place]).checkpoints] == [3, 5], "the newest covers those before it"


@every_place
def test_two_logs_of_one_name_are_told_and_both_are_kept(place: str) -> None:
    publish([place], made(3))
    (problem,) = publish([place], made(3, root=2))
    assert "two logs were signed under the name 'example.org/test'" in problem
    assert {item.root for item in collect([place]).checkpoints} == {b"\x01" * 32, b"\x02" * 32}


@every_place
def test_several_logs_share_a_place(place: str) -> None:
    publish([place], made(3))
    publish([place], made(3, name="example.org/other", root=2))
    publish([place], made(4))
    found = collect([place])
    assert found.problems == ()
    assert [item.size for item in of_log(found.checkpoints, NAME)] == [3, 4]
    assert of_log(found.checkpoints, "example.org/other") == (made(3, name="example.org/other", root=2),)
    assert of_log(found.checkpoints, "example.org") == ()


@every_place
def test_two_maintainers_publish_once(place: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: publish([place], made(7)), range(8)))
    if not place.startswith("git"):  # git has one writer at a time and says so; the next pass finds it done
        assert set(told) == {()}
    assert publish([place], made(7)) == ()
    path = Path(place.partition(":")[2])
    match place[:3]:
        case "fil":
            assert path.read_text().count("\n7\n") == 1
        case "dir":
            assert len(list(path.iterdir())) == 1
        case _:
            assert len(git(path, "log", "--format=%s", "--", "cagg-checkpoints").splitlines()) == 1


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_file_is_only_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    content = b""
    for size in range(1, 400):
        publish([f"file:{path}"], made(size))
        now = path.read_bytes()
        assert now.startswith(content)
        content = now
    assert len(collect([f"file:{path}"]).checkpoints) == 399


@pytest.mark.parametrize("cut", [1, 20, 60, 150, 210])
def test_a_record_that_a_crash_cut_short_does_not_spoil_the_next(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "notes"
    publish([f"file:{path}"], made(1))
    whole = path.read_bytes()
    path.write_bytes(whole + made(2).note.encode()[:cut])
    assert publish([f"file:{path}"], made(2)) == ()
    assert path.read_bytes().startswith(whole)
    assert list(collect([f"file:{path}"]).checkpoints) == [made(1), made(2)]


# ---- folders that are written once ----------------------------------------------------------------------------------


def test_a_file_in_a_folder_is_never_touched_again(tmp_path: Path) -> None:
    publish([f"dir:{tmp_path}"], made(3))
    (path,) = tmp_path.iterdir()
    path.write_text(made(3).note[:40])  # as a crash left it
    assert publish([f"dir:{tmp_path}"], made(3)) == ()
    assert path.read_text() == made(3).note[:40]
    found = collect([f"dir:{tmp_path}"])
    assert list(found.checkpoints) == [made(3)]
    assert [str(path) in problem for problem in found.problems] == [True]
    assert publish([f"dir:{tmp_path}"], made(3)) == ()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_that_a_crash_cut_short_does_not_hide_those_before_it(tmp_path: Path) -> None:
    """Before it signs, `maintain` asks what was signed last: the newest whole checkpoint says it."""
    place = f"dir:{tmp_path}"
    for size in (1, 2):
        publish([place], made(size))
    last = max(tmp_path.iterdir(), key=lambda path: path.name)
    last.write_text(last.read_text(encoding="utf-8")[:40], encoding="utf-8")
    assert [item.size for item in newest([place], NAME)] == [1]


def test_a_pipe_in_the_place_of_a_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    place = f"file:{tmp_path / 'pipe'}"
    code = f"from cagg.ledger.anchors import newest; print(newest([{place!r}], {NAME!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "()\n"
    (problem,) = publish([place], made(1))
    assert "None" not in problem


def test_junk_in_a_folder_is_told_and_stops_nothing(tmp_path: Path) -> None:
    publish([f"dir:{tmp_path}"], made(3))
    (tmp_path / "junk").write_bytes(b"\xff\x00\x01")
    (tmp_path / "unsigned").write_text(made(9).note.split("\n\n")[0] + "\n")
    (tmp_path / "wrong").write_text(made(9).note.replace("— ", "— a b "))
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    found = collect([f"dir:{tmp_path}"])
    assert list(found.checkpoints) == [made(3)]
    assert sorted(problem.split()[2].rpartition("/")[2] for problem in found.problems) == [
        "empty",
        "junk",
        "unsigned",
        "wrong",
    ]


# ---- git ------------------------------------------------------------------------------------------------------------


def test_a_commit_takes_in_nothing_else_and_runs_nothing(tree: Path, tmp_path: Path) -> None:
    (tree / "README").write_text("changed\n")
    (tree / "staged").write_text("staged\n")
    (tree / "loose").write_text("loose\n")
    git(tree, "add", "staged")
    (tree / ".gitignore").write_text("cagg-checkpoints\n")
    for hook in ("pre-commit", "commit-msg", "post-commit", "prepare-commit-msg", "reference-transaction"):
        path = tree / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran-{hook}\nexit 1\n")
        path.chmod(0o755)
    git(tree, "config", "commit.gpgSign", "true")
    git(tree, "config", "core.autocrlf", "true")
    before = git(tree, "status", "--porcelain")
    assert publish([f"git:{tree}"], made(3)) == ()
    assert git(tree, "status", "--porcelain") == before
    changed = git(tree, "show", "--name-only", "--format=%an <%ae>%n%s", "HEAD").split("\n")
    assert changed[:2] == ["cagg <cagg@localhost>", "Checkpoint of example.org/test: 3 entries"]
    assert [name for name in changed[2:] if name] == ["cagg-checkpoints/example.org_test-dc16549f.txt"]
    assert not list(tmp_path.glob("ran-*"))
    assert (tree / changed[3]).read_text() == made(3).note


def test_a_work_tree_without_a_commit_and_one_without_a_branch_will_do(tmp_path: Path, tree: Path) -> None:
    empty = tmp_path / "empty"
    git(tmp_path, "init", "--quiet", str(empty))
    git(tree, "checkout", "--quiet", "--detach")
    for folder in (empty, tree):
        assert publish([f"git:{folder}"], made(3)) == ()
        assert list(collect([f"git:{folder}"]).checkpoints) == [made(3)]
        assert publish([f"git:{folder}"], made(3)) == ()


def test_in_the_middle_of_a_merge_nothing_is_committed(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "-b", "other")
    (tree / "README").write_text("theirs\n")
    git(tree, "commit", "--quiet", "-am", "theirs")
    git(tree, "checkout", "--quiet", "main")
    (tree / "README").write_text("ours\n")
    git(tree, "commit", "--quiet", "-am", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        git(tree, "merge", "other")
    (problem,) = publish([f"git:{tree}"], made(3))
    assert "unfinished there (MERGE_HEAD)" in problem
    assert "cagg-checkpoints" not in git(tree, "status", "--porcelain")
    git(tree, "merge", "--abort")
    assert publish([f"git:{tree}"], made(3)) == ()
    assert list(collect([f"git:{tree}"]).checkpoints) == [made(3)]


def test_every_version_of_every_branch_is_found(tree: Path) -> None:
    publish([f"git:{tree}"], made(1))
    git(tree, "checkout", "--quiet", "-b", "other")
    publish([f"git:{tree}"], made(2))
    git(tree, "checkout", "--quiet", "main")
    git(tree, "rm", "--quiet", "-r", "cagg-checkpoints")
    git(tree, "commit", "--quiet", "-m", "gone from the newest commit")
    assert [item.size for item in collect([str(tree)]).checkpoints] == [1, 2]
    (tree / "inside").mkdir()
    assert publish([f"git:{tree}/inside"], made(4)) == ()
    assert newest([f"git:{tree}"], NAME) == (made(4),)


def test_the_environment_does_not_lead_git_elsewhere(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert publish([f"git:{tree}"], made(3)) == ()
    monkeypatch.undo()
    assert "cagg-checkpoints" in git(tree, "show", "--name-only", "HEAD")


def test_no_repository_and_no_git_are_named(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = publish([f"git:{tmp_path}"], made(3))
    assert "not a git repository" in problem
    assert "not a git repository" in collect([f"git:{tmp_path}"]).problems[0]
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = publish([f"git:{tree}"], made(3))
    assert "install it" in problem


# ---- logs -----------------------------------------------------------------------------------------------------------


def test_a_line_of_any_log_is_found(tmp_path: Path) -> None:
    line = line_of(made(3))
    assert line.count("\n") == 0
    assert base64.b64decode(line.removeprefix("cagg-checkpoint ")).decode() == made(3).note
    (tmp_path / "airflow.log").write_text(
        json.dumps({"timestamp": "2026-11-23T06:00:00Z", "event": line, "logger": "cagg.airflow"}) + "\n"
    )
    (tmp_path / "prefect.log").write_text(f"06:00:00.123 | INFO    | Task run 'a' - {line_of(made(4))}\r\n")
    (tmp_path / "old.log").write_text(f"[2026-11-23] {{asking.py:1}} INFO - {line_of(made(5))}\n" * 3)
    found = collect([str(tmp_path / name) for name in ("airflow.log", "prefect.log", "old.log")])
    assert found.problems == ()
    assert list(found.checkpoints) == [made(3), made(4), made(5)]


def test_a_line_that_was_cut_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"x {line_of(made(3))[:-30]}\nx {line_of(made(4))}\n")
    found = collect([str(tmp_path / "log")])
    assert list(found.checkpoints) == [made(4)]
    assert "holds something that is no checkpoint" in found.problems[0]


@given(
    noise=st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=80), max_size=8),
    sizes=st.lists(st.integers(1, 50), max_size=4),
    way=st.sampled_from(["lines", "notes"]),
    at=st.integers(0, 8),
)
def test_whatever_stands_around_it(
    tmp_path_factory: pytest.TempPathFactory, noise: list[str], sizes: list[int], way: str, at: int
) -> None:
    shown = [f"{line_of(made(size))}\n" if way == "lines" else f"\n{made(size).note}\n" for size in sizes]
    before, after = "\n".join(noise[:at]), "\n".join(noise[at:])
    path = tmp_path_factory.mktemp("noise") / "log"
    path.write_bytes(f"{before}\n{''.join(shown)}{after}".encode("utf-8", "replace"))
    found = collect([str(path)])
    assert [item.size for item in found.checkpoints] == sorted(set(sizes))


def test_the_log_as_a_place(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cagg.checkpoint"):
        assert publish(["log"], made(3)) == ()
    assert caplog.messages == [line_of(made(3))]
    assert collect(["log"]) == collect([])


def test_places_that_are_none_are_refused(tmp_path: Path) -> None:
    for text in ("", "ftp:/x", "file:", "https://example.org"):
        with pytest.raises(InvalidInput):
            publish([text], made(3))
    assert "cannot be read" in collect([str(tmp_path / "missing")]).problems[0]
    assert "holds no checkpoint" in collect(["/dev/null"]).problems[0]


# ---- settings and maintain ------------------------------------------------------------------------------------------


def test_places_come_from_the_settings(tmp_path: Path) -> None:
    (tmp_path / "cagg.toml").write_text('anchors = ["file:notes/a", "dir:/worm", "git:repo", "log"]\n')
    found = load_settings(environ={}, start=tmp_path)
    assert found.anchors == (f"file:{tmp_path}/notes/a", "dir:/worm", f"git:{tmp_path}/repo", "log")
    found = load_settings(environ={"CAGG_ANCHORS": "log, file:/b"}, start=tmp_path)
    assert (found.anchors, found.origins["anchors"]) == (("log", "file:/b"), "environment (CAGG_ANCHORS)")
    (tmp_path / "cagg.toml").write_text("anchors = []\n")
    assert load_settings(environ={}, start=tmp_path).anchors == ()
    for wrong in ('["ftp:/x"]', '["file:"]', "3", '"git"'):
        (tmp_path / "cagg.toml").write_text(f"anchors = {wrong}\n")
        with pytest.raises(ConfigurationError, match="anchors"):
            load_settings(environ={}, start=tmp_path)


def parts_of(store: Store, home: Path, clock: ManualClock, *anchors: str) -> Components:
    settings = Settings(home=home, anchors=anchors)
    return Components(
        settings=settings,
        clock=clock,
        store=store,
        grid=Grid(settings, clock),
        spool=Spool(home / "spool"),
        meter_factory=lambda: pytest.fail("nothing is metered here"),
    )


def grow(store: Store, *names: str) -> None:
    with store.transaction() as tx:
        for name in names:
            append(tx, draft(name))
    with store.transaction() as tx:
        while sequence(tx):
            pass


def test_maintain_publishes_what_it_signed_and_catches_up(
    store: Store, tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    parts = parts_of(store, tmp_path / "home", clock, f"file:{tmp_path}/gone/notes", f"dir:{tmp_path}/worm", "log")
    (tmp_path / "worm").mkdir()
    problems: list[str] = []
    caplog.set_level(logging.INFO, logger="cagg.checkpoint")
    grow(store)
    assert sign_and_publish(parts, problems) is None, "there is nothing to sign yet"
    grow(store, "a")
    first = sign_and_publish(parts, problems)
    assert first is not None
    assert len(problems) == 1
    grow(store, "b")
    second = sign_and_publish(parts, problems)
    assert second is not None
    (tmp_path / "gone").mkdir()
    del problems[:]
    assert sign_and_publish(parts, problems) == second
    assert sign_and_publish(parts, problems) == second
    assert problems == []
    assert caplog.messages == [line_of(first), line_of(second)], "once each, whatever became of the other places"
    assert [item.note for item in collect([f"file:{tmp_path}/gone/notes"]).checkpoints] == [second.note]
    assert [item.note for item in collect([f"dir:{tmp_path}/worm"]).checkpoints] == [first.note, second.note]


def test_maintain_does_not_sign_against_an_anchor(store: Store, tmp_path: Path, clock: ManualClock) -> None:
    home, anchor = tmp_path / "home", f"file:{tmp_path}/notes"
    parts = parts_of(store, home, clock, anchor)
    problems: list[str] = []
    grow(store, *"abc")
    sign_and_publish(parts, problems)
    (home / "keys" / "log.checkpoint").unlink()
    with store.transaction() as tx:
        connection = unlock(tx)
        connection.exec_driver_sql("DELETE FROM cagg_checkpoint")
        connection.exec_driver_sql("DELETE FROM cagg_leaf WHERE leaf_index = 2")
    assert sign_and_publish(parts, problems) is None
    assert "in an anchor" in problems[0]


def test_a_task_log_hears_of_a_checkpoint_once(store: Store, tmp_path: Path, clock: ManualClock) -> None:
    parts = parts_of(store, tmp_path, clock)
    grow(store)
    with store.snapshot() as tx:
        assert untold_checkpoint(tx).tell() == ""
    grow(store, "a")
    told = []
    for name in ("b", "c"):
        checkpoint = sign_and_publish(parts, [])
        assert checkpoint is not None
        with store.snapshot() as tx:
            told += [untold_checkpoint(tx).tell(), untold_checkpoint(tx).tell()]
        assert told[-2:] == [line_of(checkpoint), ""]
        grow(store, name)
