"""What every store must do with many entries at once and with personal values: a pytest suite."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest

from cagg.entries import Entry, EntryDraft, EntryKind, PrivateValue
from cagg.errors import IdempotencyConflict, InvalidInput, StoreUnavailable
from cagg.ledger.entry import append, append_many, read_body
from cagg.ledger.merkle import TILE_WIDTH, leaf_hash, root_of
from cagg.ports import Store
from cagg.testing._store_logs import names_of, place_all, rolled, small
from cagg.testing._threads import in_threads
from cagg.testing.kinds import LEAST

__all__ = ["ManyContract"]


def _secret(entry: Entry, field: str = "approver", value: str = "Ada") -> PrivateValue:
    return PrivateValue(entry_id=entry.entry_id, field=field, salt=hashlib.sha256(field.encode()).digest(), value=value)


class ManyContract:
    """Tests of bulk appends and of personal values that every backend passes."""

    # ---- many entries at once -----------------------------------------------------------------------------------

    def test_many_drafts_are_recorded_in_their_order_and_each_once(self, store: Store) -> None:
        total = TILE_WIDTH + 5
        drafts = [small(f"k{number:03}") for number in range(total)]
        with store.transaction() as tx:
            first = append(tx, drafts[7])
            found = append_many(tx, [*drafts, drafts[3]])
            assert [read_body(tx, entry)["request_key"] for entry in found] == [
                *(draft.request_key for draft in drafts),
                "k003",
            ]
            assert found[-1].entry_id == found[3].entry_id
            assert found[7].entry_id == first.entry_id
            place_all(tx)
        with store.snapshot() as tx:
            assert names_of(tx) == ["k007", *(f"k{number:03}" for number in range(total) if number != 7)]
            assert tx.tree_size() == total
            leaves = tx.leaf_hashes(0, total)
            assert list(tx.tile_roots(0, 0, 1)) == [root_of(leaves[:TILE_WIDTH])]
            assert sorted(leaves) == sorted({leaf_hash(entry.body) for entry in found})
        with store.transaction() as tx:
            again = append_many(tx, drafts)
            assert [entry.entry_id for entry in again] == [entry.entry_id for entry in found[:-1]]
            assert (tx.tree_size(), tx.queued()) == (total, 0)
            assert append_many(tx, []) == []

    @pytest.mark.parametrize("stored", [0, 1])
    def test_another_body_under_a_key_of_the_batch_is_a_conflict(self, store: Store, stored: int) -> None:
        with store.transaction() as tx:
            append_many(tx, [small("a")][:stored])
        twice = [small("b"), small("a", note="one"), small("a", note="two")]
        with pytest.raises(IdempotencyConflict, match="already recorded"), store.transaction() as tx:
            append_many(tx, twice)
        with store.snapshot() as tx:
            assert names_of(tx) == ["a"][:stored]

    def test_one_bad_draft_keeps_the_whole_batch_out(self, store: Store) -> None:
        with store.transaction():
            pass
        with pytest.raises(InvalidInput, match="float"), store.transaction() as tx:
            append_many(tx, [small("a"), small("b", share=0.5)])
        with store.snapshot() as tx:
            assert (tx.tree_size(), tx.queued(), names_of(tx)) == (0, 0, [])

    def test_attachments_and_personal_values_of_a_batch_are_kept(self, store: Store) -> None:
        data = b"evidence"
        digest = hashlib.sha256(data).hexdigest()
        attached = EntryDraft(
            kind=EntryKind.DECISION,
            request_key="a",
            ordinal=0,
            body={**LEAST[EntryKind.DECISION], "evidence": {"blob": digest}},
            blobs={digest: data},
            private={"approver": "Ada"},
        )
        with store.transaction() as tx:
            entry, _, same = append_many(tx, [attached, small("b", large=["ä" * 70_000]), attached])
            assert same.entry_id == entry.entry_id
        with store.snapshot() as tx:
            assert tx.blob(digest) == data
            assert [item.value for item in tx.private_values(entry.entry_id)] == ["Ada"]
            assert [len(read_body(tx, one).get("large", [])) for one in tx.entries()] == [0, 1]

    def test_batches_with_the_same_keys_in_any_order_meet_without_harm(self, store: Store) -> None:
        with store.transaction():
            pass
        keys = [f"k{number}" for number in range(40)]

        def work(offset: int) -> None:
            for turn in range(4):
                mine = keys[offset:] + keys[:offset]
                with store.transaction() as tx:
                    append_many(tx, [small(key) for key in (mine if turn % 2 else mine[::-1])])

        in_threads([partial(work, offset) for offset in (0, 11, 23, 37)])
        with store.transaction() as tx:
            place_all(tx)
            assert sorted(names_of(tx)) == sorted(keys)
            assert tx.tree_size() == len(keys)

    def test_entries_are_found_by_many_keys(self, store: Store) -> None:
        with store.transaction() as tx:
            found = {entry.idempotency_key: entry for entry in append_many(tx, [small(f"k{n}") for n in range(600)])}
        with store.snapshot() as tx:
            assert tx.entries_by_keys([*found, b"\x00" * 32]) == found
            assert tx.entries_by_keys([]) == {}
            assert tx.entries_by_keys([b"\x00" * 32]) == {}

    # ---- personal values ----------------------------------------------------------------------------------------

    def test_personal_values_are_kept_once_and_can_be_deleted(self, store: Store) -> None:
        with store.transaction() as tx:
            entry, other = append_many(tx, [small("a"), small("b")])
            tx.put_private([_secret(entry), _secret(entry, "owner"), _secret(other)])
            tx.put_private([_secret(entry, value="Eve")])
            assert tx.row_counts()["private"] == (0 if tx.queued() else 3), "those of entries that have their place"
            place_all(tx)
        with store.transaction() as tx:
            assert list(tx.private_values(entry.entry_id)) == [_secret(entry), _secret(entry, "owner")]
            assert [item.entry_id for item in tx.private_values()] == sorted([entry.entry_id] * 2 + [other.entry_id])
            assert tx.row_counts()["private"] == 3
            assert tx.drop_private(entry.entry_id, "approver")
            assert not tx.drop_private(entry.entry_id, "approver")
            assert not tx.drop_private("nobody", "approver")
        with store.snapshot() as tx:
            assert list(tx.private_values(entry.entry_id)) == [_secret(entry, "owner")]
            assert list(tx.private_values("nobody")) == []
            assert tx.entry(entry.entry_id) is not None

    def test_a_personal_value_is_never_changed(self, store: Store) -> None:
        with store.transaction() as tx:
            tx.put_private([_secret(append(tx, small("a")))])
        with pytest.raises(StoreUnavailable, match="append-only"), store.transaction() as tx:
            tx.connection.exec_driver_sql("UPDATE cagg_private SET value = 'Eve'")  # type: ignore[attr-defined]

    def test_a_rollback_takes_personal_values_and_their_deletion_back(self, store: Store) -> None:
        with store.transaction() as tx:
            entry = append(tx, small("a"))
            tx.put_private([_secret(entry)])
        with pytest.raises(ZeroDivisionError), store.transaction() as tx:
            tx.drop_private(entry.entry_id, "approver")
            tx.put_private([_secret(entry, "owner")])
            raise ZeroDivisionError
        with store.snapshot() as tx:
            assert list(tx.private_values()) == [_secret(entry)]

    def test_many_personal_values_stream_over_pages(self, store: Store) -> None:
        with store.transaction() as tx:
            entries = append_many(tx, [small(f"k{number}") for number in range(400)])
            tx.put_private([_secret(entry, field) for entry in entries for field in ("approver", "owner", "host")])
        with store.snapshot() as tx:
            found = [(item.entry_id, item.field) for item in tx.private_values()]
        assert found == sorted((e.entry_id, field) for e in entries for field in ("approver", "owner", "host"))

    def test_personal_values_stay_with_the_log_of_their_entry(self, store: Store) -> None:
        with store.transaction() as tx:
            old = tx.origin()
            entry = append(tx, small("a"))
            rolled(tx)
        with store.transaction() as tx:
            tx.put_private([_secret(entry)])
            assert (list(tx.private_values()), tx.row_counts()["private"]) == ([], 0)
            assert list(tx.in_log(old).private_values()) == list(tx.private_values(entry.entry_id)) == [_secret(entry)]
            assert tx.drop_private(entry.entry_id, "approver")
            with pytest.raises(InvalidInput, match="not in the store"):
                tx.put_private([PrivateValue(entry_id="nobody", field="x", salt=b"\x00" * 32, value="y")])

    def test_personal_values_are_compared_by_the_store(self, store: Store) -> None:
        with store.transaction() as tx:
            entry = append(tx, small("a"))
            tx.put_private([_secret(entry), _secret(entry, "owner", "Bob")])
            assert tx.same_private(entry.entry_id, {"approver": "Ada", "owner": "Bob"})
            assert not tx.same_private(entry.entry_id, {"approver": "Ada", "owner": "Eve"})
            tx.drop_private(entry.entry_id, "owner")
            assert tx.same_private(entry.entry_id, {"approver": "Ada", "owner": "Eve"})
