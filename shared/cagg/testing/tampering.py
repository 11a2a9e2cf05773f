"""A corpus of attacks on the ledger: what somebody with full write access to the database does, and what finds it.

For tests of ``verify`` and of any other verifier. Fill an empty store whose log is named :data:`ORIGIN`, then try each
attack; a block takes back what it did::

    log = fill(store)
    for attack in ATTACKS:
        with attacked(log) as target:
            attack.apply(target)
            report = target.verdict(attack.needs)

The corpus also writes docs/attacks.md: ``python -m cagg.testing.tampering > docs/attacks.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cagg.testing._attack import Attack, Group, Needs, Target, attacked
from cagg.testing._attacked_log import ORIGIN, SIZE, AttackedLog, fill
from cagg.testing._attacks_beside import BESIDE
from cagg.testing._attacks_on_entries import BODIES, CELLS, INSIDER
from cagg.testing._attacks_on_keys import KEYS
from cagg.testing._attacks_on_rows import ROWS, TAIL
from cagg.testing.bitflips import LEDGER_TABLES, OUTSIDE, WITHOUT_EVIDENCE

__all__ = [
    "ATTACKS",
    "ELSEWHERE",
    "ORIGIN",
    "Attack",
    "AttackedLog",
    "Group",
    "Needs",
    "Target",
    "attack_page",
    "attack_table",
    "attacked",
    "fill",
]

ATTACKS: tuple[Attack, ...] = (*ROWS, *CELLS, *BODIES, *INSIDER, *TAIL, *KEYS, *BESIDE)
"""Every attack, in the order of the table."""

ELSEWHERE: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "a file copied without its write-ahead log",
        "copies the database file alone, before anything was written back into it",
        "refused: `StoreUnavailable`",
        "yes",
        "test_files.py::test_a_copy_without_its_log_that_was_never_written_back_is_refused",
    ),
    (
        "an older state of a file",
        "copies the database file alone, after a part was written back: a shorter log that is whole in itself",
        "`truncated`",
        "no: a checkpoint from outside",
        "test_files.py::test_a_copy_without_its_log_is_an_older_log_and_an_outside_checkpoint_shows_it",
    ),
    (
        "half a file",
        "cuts the file itself",
        "refused: `StoreUnavailable`",
        "yes",
        "test_files.py::test_a_file_cut_short_is_refused",
    ),
    (
        "read-only media",
        "– (an auditor's copy)",
        "–",
        "verified, and not a byte is written",
        "test_files.py::test_read_only_media_are_verified_and_left_as_they_are",
    ),
    (
        "a log without an entry",
        "starts anew",
        "never called verified",
        "no: a checkpoint from outside says that there were entries",
        "test_files.py::test_a_log_without_an_entry_is_never_called_verified",
    ),
    (
        "a clock set back, or years ahead",
        "– (a fault; entries keep the time that they were given)",
        "a note of the report",
        "accepted, and told",
        "test_clocks.py::test_a_clock_that_is_set_back_is_told",
    ),
    (
        "64 writers, every tenth request common, every tenth taken back",
        "– (a race)",
        "the tables' keys",
        "one entry per request, dense places, nothing acknowledged missing",
        "test_crowds.py::test_64_connections_to_a_server",
    ),
    (
        "a log of format 1 written long ago",
        "– (time)",
        "–",
        "verified for ever, and the same facts give the same bytes",
        "../test_golden_log.py::test_the_kept_steps_give_the_kept_bytes",
    ),
)
"""What is no change of rows: attack, what happens, caught by, without outside help, and the test that shows it."""

_ANSWER = {
    Needs.NOTHING: "yes",
    Needs.KEY: "no: a public key from outside",
    Needs.CHECKPOINT: "no: a checkpoint from outside",
    Needs.NOBODY: "**not caught**",
    Needs.HARMLESS: "passes, as it must",
}

_HEAD = "| attack | what the attacker does | caught by | without outside help? |"
_INTRODUCTION = """\
# Attacks on the ledger

<!-- written by `python -m cagg.testing.tampering > docs/attacks.md`; a test compares it with what is shown here -->

Each line is an attack of somebody with full write access to the database: every trigger, key and right in it is theirs
to drop. The tests carry each one out on a log of {entries} entries with several checkpoints, a change of keys,
attachments and personal values, on SQLite and on PostgreSQL, and check both halves of the line: that
`cagg ledger verify` finds it with what the last column names, and that it finds nothing with less.

- "Caught by" names the kinds of failures in the report; `refused` means that the program itself declines to go on.
- "yes" means that the store alone gives the attack away, without any key.
- **A public key from outside** is the `log.vkey` that you kept when the log was begun: `verify --key`. Whoever owns the
  database can write another key into it, and sign everything again.
- **A checkpoint from outside** is any older signed checkpoint: from a task's log, a file, a git repository
  (`verify --anchors`). Whoever owns both the database and the signing key can write any history they like; only
  what others have kept of the true one shows it.

The ledger is tamper-evident, not tamper-proof. A file's owner can do anything to it, and not unnoticed: but only as
far as somebody outside holds the key, and a checkpoint that is newer than what was changed. What was never signed, or
whose checkpoint nobody kept, is reported as unproven, and can be cut off or exchanged without a trace.
"""


_FLIPS = (
    "One bit of every cell of {tables} is flipped, and every bit of one row of each kind; `make prove` flips every bit "
    "of every cell, of cells above 4,096 bytes one in 129. Each flip is found. Excepted are cells that prove "
    "nothing:"
)


def attack_page() -> str:
    """Return docs/attacks.md."""
    totals = {needs: sum(1 for attack in ATTACKS if attack.needs is needs) for needs in Needs}
    summary = (
        f"Of {len(ATTACKS)} attacks on rows, the store alone gives away {totals[Needs.NOTHING]}; "
        f"{totals[Needs.KEY]} need a key\nfrom outside, {totals[Needs.CHECKPOINT]} a checkpoint from outside, "
        f"{totals[Needs.NOBODY]} are not caught, and {totals[Needs.HARMLESS]} change nothing that counts\n"
        "and must pass."
    )
    parts = [_INTRODUCTION.format(entries=SIZE), summary, "", attack_table(), _elsewhere(), _bits()]
    return "\n".join(parts)


def attack_table(attacks: Sequence[Attack] = ATTACKS) -> str:
    """Return the attacks as tables in Markdown, one per group."""
    lines: list[str] = []
    for group in Group:
        rows = [_row(attack) for attack in attacks if attack.group is group]
        lines += [f"## {group}", "", _HEAD, "|---|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _row(attack: Attack) -> str:
    only = f" ({'SQLite' if attack.backend == 'sqlite' else 'PostgreSQL'} only)" if attack.backend else ""
    caught = ", ".join(f"`{kind}`" for kind in sorted(attack.by)) or "–"
    answer = _ANSWER[attack.needs]
    if attack.refused is not None:
        caught = f"refused: `{attack.refused.__name__}`"
    remark = f"; {attack.remark}" if attack.remark else ""
    return f"| {attack.name}{only} | {attack.does} | {caught} | {answer}{remark} |"


def _elsewhere() -> str:
    rows = [f"| {name} | {does} | {caught} | {answer} |" for name, does, caught, answer, _ in ELSEWHERE]
    return "\n".join(["## Files, clocks, crowds, time", "", _HEAD, "|---|---|---|---|", *rows, ""])


def _bits() -> str:
    """What the flips of single bits show, and what they cannot."""
    tables = ", ".join(f"`{name}`" for name in LEDGER_TABLES)
    exempt = [f"| `{table}.{column}` | {why} |" for (table, column), why in WITHOUT_EVIDENCE.items()]
    outside = [f"| `{table}` | {why} |" for table, why in OUTSIDE.items()]
    return "\n".join(
        [
            "## Single bits",
            "",
            _FLIPS.format(tables=tables),
            "",
            "| cell | what it is for |",
            "|---|---|",
            *exempt,
            "",
            "These tables stand outside of the log:",
            "",
            "| table | why |",
            "|---|---|",
            *outside,
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(attack_page())
