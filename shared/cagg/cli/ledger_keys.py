"""``cagg ledger key | checkpoint | rotate-key | revoke-key``: what to keep outside of the store, and who signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cagg.cli._ledger_keys import key_exists, key_file, keys_of_logs, log_keys
from cagg.cli._output import Json, answer, line, write_exactly
from cagg.errors import CaggError, ConfigurationError, InvalidInput, StoreUnavailable

if TYPE_CHECKING:
    from rich.console import Console

    from cagg.composition import Components
    from cagg.ledger.keyring import KeyStanding
    from cagg.steps.keychange import KeyChange

__all__ = ["checkpoint", "key", "revoke_key", "rotate_key"]


def key(*, json: Json = False) -> int:
    """Show the public keys that checkpoints are verified with; keep them outside of the store.

    Lines that begin with # say what each key may sign; the output as it is can be given to verify --key.
    """
    from cagg.cli._context import components

    parts = components()
    place = key_file(parts)
    if not key_exists(place):
        raise ConfigurationError(
            f"there is no key at {place} yet; `cagg maintain` makes one with its first checkpoint."
        )
    keys, found = _of_logs(parts)
    last = found[-1].key.name if found else ""

    def people(_: Console) -> None:
        lines = []
        for item in found if len(found) > 1 else ():
            shown = str(item.key) if str(item.key) not in keys else f"{item.key.name}+{item.key.key_id.hex()}"
            lines.append(f"# {_in_words(item, last)}: {shown}")
        write_exactly("".join(f"{text}\n" for text in (*lines, *keys)))

    document = {"keys": keys, "file": str(place), "states": [_standing_json(item, last) for item in found]}
    return answer(document, people, json=json)


def _of_logs(parts: Components) -> tuple[list[str], list[KeyStanding]]:
    """Return the public keys of the store's logs, in the order of the logs, and what each key may sign.

    Where the store cannot say it: the keys that are there, and nothing of what they may sign.
    """
    from cagg.cli._context import store_is_new
    from cagg.ledger.keyring import KeyRing

    if store_is_new(parts):
        return log_keys(parts), []
    try:
        with parts.store.snapshot() as tx:
            keys = keys_of_logs(parts, tx)
            found: list[KeyStanding] = []
            for log in tx.logs():
                rows = tx if log.origin == tx.origin() else tx.in_log(log.origin)
                own = KeyRing.of(rows, keys).standings
                found += sorted(own, key=lambda item: (item.retired_at is None, item.retired_at or 0))
            return keys, found
    except CaggError:
        return log_keys(parts), []  # the key itself can be shown without a store


def _state(item: KeyStanding, active_log: str) -> str:
    """Return where a key is in its life; that which signed a frozen log to its end is not active any more."""
    is_over = str(item.state) == "active" and item.key.name != active_log
    return "frozen" if is_over else str(item.state)


def _in_words(item: KeyStanding, active_log: str) -> str:
    words = [_state(item, active_log)]
    if words == ["frozen"]:
        words = ["of a frozen log, signs no more"]
    if item.first_size:
        words.append(f"signs from {item.first_size} entries on")
    if item.retired_at is not None:
        words.append(f"replaced at {item.retired_at} entries")
    if item.revoked_from is not None:
        words.append(f"counts for nothing from {item.revoked_from} entries on")
    return ", ".join(words)


def _standing_json(item: KeyStanding, active_log: str) -> dict[str, Any]:
    return {
        "log": item.key.name,
        "key": str(item.key),
        "key_id": item.key.key_id.hex(),
        "state": _state(item, active_log),
        "first_size": item.first_size,
        "retired_at": item.retired_at,
        "revoked_from": item.revoked_from,
    }


def checkpoint(*, json: Json = False) -> int:
    """Print the newest signed checkpoint; kept elsewhere, it shows later that nothing was cut off (verify --since)."""
    from cagg.cli._context import components, store_is_new

    parts = components()
    last = None
    if not store_is_new(parts):
        with parts.store.snapshot() as tx:
            last = tx.last_checkpoint()
    if last is None:
        raise StoreUnavailable("there is no signed checkpoint yet; `cagg maintain` signs one.")
    document = {"size": last.size, "root": last.root.hex(), "note": last.note, "created_at": last.created_at}
    return answer(document, lambda _: write_exactly(last.note), json=json)


def rotate_key(
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands in the log for ever, so name no person.")],
    json: Json = False,
) -> int:
    """Replace the signing key. Run it where `cagg maintain` runs, with the same home.

    The entry that announces the new key is signed by both keys, and so is the next checkpoint: whoever trusts the old
    key need not be told. When it was interrupted, run it again; `cagg maintain` goes on as well.
    """
    from cagg.steps.keychange import rotate_key as rotate

    parts = _with_ledger()
    done = rotate(parts, reason)

    def people(to: Console) -> None:
        line(to, f"Both keys signed the checkpoint of {done.size} entries; later ones are signed by the new key alone.")
        line(to, "The old private key is gone. Public key, to be kept outside of the store beside the old one:")
        to.print(str(done.key), soft_wrap=True)
        for problem in done.problems:
            line(to, f"Problem: {problem}", style="yellow")

    return answer(_change_json(done), people, json=json)


def revoke_key(
    key: Annotated[str, typer.Argument(help="The key, or its id of eight hex digits, as `cagg ledger key` lists it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it stands in the log for ever, so name no person.")],
    from_size: Annotated[
        int | None, typer.Option(help="First size that is in doubt; default: the first after it was replaced.", min=0)
    ] = None,
    json: Json = False,
) -> int:
    """Let a key's signatures count for nothing from a size on, for example because its file was stolen.

    The key that signs now cannot be revoked: replace it first (rotate-key). Exit status 1 when the key is revoked so
    already, and nothing is recorded.
    """
    from cagg.steps.keychange import revoke_key as revoke

    parts = _with_ledger()
    known = _named(parts, key)
    size = from_size if from_size is not None or known is None or known.retired_at is None else known.retired_at + 1
    if known is not None and known.revoked_from is not None and size is not None and size >= known.revoked_from:
        return _stands(known, json=json)
    done = revoke(parts, key, reason, from_size)
    breaks_chain = known is None or known.retired_at is None or done.size <= known.retired_at

    def people(to: Console) -> None:
        line(to, f"{done.before.name}+{done.before.key_id.hex()} counts for nothing from {done.size} entries on.")
        line(to, f"The checkpoint of {done.checkpoint.size} entries, signed just now, covers the revocation.")
        if breaks_chain:
            line(to, "Auditors who hold only that key must be given the one that signs now, outside of the store:")
        else:
            line(to, "Auditors who hold that key need no other: it vouches for its successor. The one that signs now:")
        to.print(str(done.key), soft_wrap=True)
        for problem in done.problems:
            line(to, f"Problem: {problem}", style="yellow")

    return answer({"changed": True, **_change_json(done)}, people, json=json)


def _named(parts: Components, text: str) -> KeyStanding | None:
    """Return the key of the log that grows that a text names; None when it names none.

    Raises:
        InvalidInput: it names a key of a frozen log.
    """
    _, found = _of_logs(parts)
    last = found[-1].key.name if found else ""
    for item in found:
        short = item.key.key_id.hex()
        if text.strip() not in (str(item.key), short, f"{item.key.name}+{short}"):
            continue
        if item.key.name == last:
            return item
        raise InvalidInput(
            f"the key {item.key.name}+{short} is of a log that is frozen and takes no entry, so it cannot be revoked "
            "there; remove its log.key, keep its log.vkey: the next log's first entry fixes all that the frozen one "
            "holds, whatever is signed with that key from now on."
        )
    return None


def _stands(known: KeyStanding, *, json: bool) -> int:
    """Say that a key is revoked already; nothing is recorded."""
    name = f"{known.key.name}+{known.key.key_id.hex()}"
    sentence = f"{name} counts for nothing from {known.revoked_from} entries on already; that revocation stands."

    def people(to: Console) -> None:
        line(to, f"Nothing was recorded: {sentence}", style="yellow")

    document = {"changed": False, "before": str(known.key), "size": known.revoked_from, "sentence": sentence}
    return answer(document, people, json=json, status=1)


def _with_ledger() -> Components:
    from cagg.cli._context import components, store_is_new

    parts = components()
    if store_is_new(parts):
        raise StoreUnavailable(f"there is no ledger at {parts.settings.store_url} yet; `cagg run -- CMD` begins one.")
    return parts


def _change_json(done: KeyChange) -> dict[str, Any]:
    return {
        "key": str(done.key),
        "before": str(done.before),
        "size": done.size,
        "checkpoint": {"size": done.checkpoint.size, "note": done.checkpoint.note},
        "problems": list(done.problems),
    }
