"""The spool loses nothing: order, crashes, damaged files, a store that is still down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cagg.errors import InvalidInput, StoreUnavailable
from cagg.spool import Spool


def test_records_are_replayed_in_order_and_once(tmp_path: Path) -> None:
    spool, seen = Spool(tmp_path / "spool"), []
    for order in (3, 1, 2):
        spool.put({"n": order}, order=order)
    report = spool.replay(lambda record: seen.append(record["n"]))
    assert seen == [1, 2, 3]
    assert report.replayed == 3
    assert spool.replay(lambda record: seen.append(record["n"])).replayed == 0


def test_a_store_that_is_still_down_keeps_the_rest(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for order in (1, 2, 3):
        spool.put({"n": order}, order=order)

    def apply(record: Mapping[str, Any]) -> None:
        if record["n"] == 2:
            raise StoreUnavailable("still down")

    assert spool.replay(apply).replayed == 1
    assert len(spool.waiting()) == 2


def test_what_cannot_be_replayed_is_set_aside_and_named(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put({"n": 1}, order=1)
    spool.put({"n": 3}, order=3)
    (tmp_path / "spool" / f"{2:020d}-x.json").write_text("{half", encoding="utf-8")

    def apply(record: Mapping[str, Any]) -> None:
        if record["n"] == 1:
            raise InvalidInput("no such kind")

    report = spool.replay(apply)
    assert report.replayed == 1
    assert report.set_aside[0].endswith(": no such kind")
    assert len(spool.bad()) == 2
    assert spool.waiting() == []


def test_a_half_written_file_is_never_replayed(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.put({"n": 1}, order=1)
    (tmp_path / "spool" / ".00000000000000000000-abc").write_text('{"n": 0', encoding="utf-8")
    assert spool.replay(lambda record: None).replayed == 1


def test_a_folder_that_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreUnavailable, match="make one of them writable"):
        Spool(tmp_path / "file" / "spool").put({}, order=1)
