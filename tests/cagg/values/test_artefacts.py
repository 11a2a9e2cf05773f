"""Digests of files, folders and bytes, and what a run may say about them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.artefacts import Artefacts, digest_of
from cagg.errors import InvalidInput


def test_bytes_and_files_have_the_sha256_of_their_content(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)  # more than one piece
    (tmp_path / "f").write_bytes(data)
    expected = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert digest_of(data) == digest_of(tmp_path / "f") == digest_of(str(tmp_path / "f")) == expected
    assert digest_of(bytearray(data)) == digest_of(memoryview(data)) == expected
    assert digest_of(b"") == f"sha256:{hashlib.sha256(b'').hexdigest()}"


@given(st.binary(max_size=300))
def test_a_digest_is_taken_as_it_is(data: bytes) -> None:
    digest = digest_of(data)
    assert digest_of(digest) == digest


def test_a_folder_has_the_digest_that_a_shell_gives(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("b.bin", "a/z.txt", "a.txt", "a-b/c", "ä/ö", "two words", "-n", "quo'te", "back\\slash", ".hidden"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (folder / "empty").mkdir()
    (tmp_path / "elsewhere").write_text("linked")
    (folder / "a link").symlink_to(tmp_path / "elsewhere")
    page = (Path(__file__).resolve().parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")
    (command,) = [line.strip() for line in page.splitlines() if line.strip().startswith("find -L ")]
    printed = subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True, text=True).stdout
    assert digest_of(folder) == f"dirhash:{printed.split()[0]}"


def test_a_folder_s_digest_follows_names_and_contents(tmp_path: Path) -> None:
    def of(**files: str) -> str:
        folder = tmp_path / hashlib.sha256(repr(files).encode()).hexdigest()
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        return digest_of(folder)

    assert len({of(a="1", b="2"), of(a="2", b="1"), of(a="1", c="2"), of(a="1"), of()}) == 5
    assert of(x="1", y="2") == of(y="2", x="1")


def test_links_to_files_count_as_the_files(tmp_path: Path) -> None:
    """As in a model hub's cache, where every file is a link."""
    for name in ("blobs", "real", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "x").write_text("weights")
    (tmp_path / "real" / "model.bin").write_text("weights")
    (tmp_path / "linked" / "model.bin").symlink_to(tmp_path / "blobs" / "x")
    assert digest_of(tmp_path / "real") == digest_of(tmp_path / "linked")


@pytest.mark.parametrize("what", ["link to a folder", "line break", "dangling", "pipe", "absent", "pipe itself", "nul"])
def test_what_has_no_digest_becomes_a_note(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "secret-name"
    folder.mkdir()
    path: str | Path = folder
    match what:
        case "link to a folder":
            (folder / "l").symlink_to(tmp_path)
        case "line break":
            (folder / "a\nb").write_text("x")
        case "dangling":
            (folder / "l").symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(folder / "p")
        case "absent":
            path = folder / "absent"
        case "pipe itself":
            path = folder / "p"
            os.mkfifo(path)
        case "nul":
            path = "a\0b"
    artefacts = Artefacts()
    assert artefacts.add_input("holdout", path, "dataset") is None
    assert artefacts.inputs() == [{"name": "holdout", "digest": None, "role": "dataset"}]
    (note,) = artefacts.notes
    assert "holdout" in note
    assert "secret-name" not in note  # a path may hold a person's name


class _PathOfBytes:
    def __fspath__(self) -> bytes:
        return b"model"


@pytest.mark.parametrize("value", [memoryview(b"abcdef")[::2], _PathOfBytes()])
def test_what_python_itself_cannot_read_never_fails_the_work(value: Any) -> None:
    artefacts = Artefacts()
    assert artefacts.add_output("model", value, "") is None
    assert len(artefacts.notes) == 1


def test_they_stand_in_the_order_of_their_names() -> None:
    artefacts = Artefacts()
    for name in ("b", "a", "c"):
        artefacts.add_output(name, name.encode(), "")
    assert [item["name"] for item in artefacts.outputs()] == ["a", "b", "c"]
    assert artefacts.inputs() == []


def test_a_name_stands_for_one_thing() -> None:
    artefacts = Artefacts()
    first = artefacts.add_input("model", b"1", "model")
    assert artefacts.add_input("model", b"1", "") == first
    with pytest.raises(InvalidInput, match="another name"):
        artefacts.add_input("model", b"2", "")
    artefacts.add_output("model", b"2", "")  # what came out is another thing than what went in
    assert artefacts.inputs() == [{"name": "model", "digest": first, "role": "model"}]


def test_what_could_not_be_read_may_be_read_later(tmp_path: Path) -> None:
    artefacts = Artefacts()
    artefacts.add_output("report", tmp_path / "report", "report")
    (tmp_path / "report").write_text("x")
    artefacts.add_output("report", tmp_path / "report", "")
    assert artefacts.outputs() == [{"name": "report", "digest": digest_of(b"x"), "role": "report"}]


@pytest.mark.parametrize("name", ["", "  ", 5, None, "x" * 201, "\ud800"])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(InvalidInput, match="name"):
        Artefacts().add_input(name, b"x", "")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [5, None, ["a"], "", 1.5])
def test_a_value_is_a_path_bytes_or_a_digest(value: object) -> None:
    with pytest.raises(InvalidInput, match="path, bytes, or a digest"):
        Artefacts().add_input("x", value, "")  # type: ignore[arg-type]


def test_a_role_is_text() -> None:
    with pytest.raises(InvalidInput, match="role"):
        Artefacts().add_input("x", b"x", 5)  # type: ignore[arg-type]
