"""Exports of a whole log, which others check: as C2SP tiles in a folder, as a bundle for an auditor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cagg.errors import ConfigurationError, InvalidInput

if TYPE_CHECKING:
    from cagg.composition import Components
    from cagg.ledger.export.bundle import BundleExport
    from cagg.ports import Checkpoint, LedgerRows

__all__ = ["bundle", "tiles"]


def tiles(tx: LedgerRows, output: Path | None) -> dict[str, Any]:
    """Write the log as tiles, or bring an earlier export up to date; return what the answer says of it.

    Raises:
        InvalidInput: there is no place to write to, or it holds something else.
        NotProven: nothing is signed yet, or the place holds another log or a fork.
        LedgerDamaged: what is stored does not fit together.
        ConfigurationError: the place cannot be written.
    """
    from cagg.ledger.export.tiles import export_tiles

    if output is None:
        raise InvalidInput("tiles are a folder; name one with -o.")
    done = export_tiles(tx, output)
    _say_left_out(done.left_out)
    return {
        "format": "tiles",
        "file": str(output),
        "entries": done.size,
        "new_entries": done.size - done.old_size,
        "origin": done.origin,
        "size": done.size,
        "root": done.root.hex(),
        "signed_size": done.size,
        "files_written": done.files,
        "left_out": done.left_out,
    }


def bundle(parts: Components, tx: LedgerRows, output: Path | None) -> dict[str, Any]:
    """Write a bundle, as an archive when the name ends in ``.zip``, else as a new folder; return what to say of it.

    Raises:
        InvalidInput: there is no place to write to, or it is taken.
        NotProven: nothing is signed yet, or the log does not continue a checkpoint that was kept outside.
        LedgerDamaged: what is stored does not fit together.
        ConfigurationError: an anchor cannot be read.
    """
    if output is None:
        raise InvalidInput("a bundle is a file or a folder; name a FILE.zip, or a new folder, with -o.")
    done = _written(parts, tx, output)
    _say_left_out(done.left_out)
    return {
        "format": "bundle",
        "file": str(output),
        "entries": done.entries,
        "origin": done.origin,
        "size": done.entries,
        "root": done.root.hex(),
        "signed_size": done.entries,
        "checkpoints": done.checkpoints,
        "anchors": done.anchors,
        "blobs": done.blobs,
        "left_out": done.left_out,
        "sha256sums": done.sums,
    }


def _written(parts: Components, tx: LedgerRows, output: Path) -> BundleExport:
    from cagg.cli._files import new_folder, whole_file
    from cagg.cli._ledger_keys import trusted_keys
    from cagg.ledger.export.bundle import FolderTarget, ZipTarget, write_bundle
    from cagg.ledger.notes import VerifierKey

    keys = [VerifierKey.parse(text) for text in trusted_keys(parts)]
    anchors = _anchors(parts)
    if output.suffix.lower() != ".zip":
        with new_folder(output) as folder:
            return write_bundle(tx, FolderTarget(folder), keys=keys, anchors=anchors)
    with whole_file(output) as file, ZipTarget(file) as archive:
        return write_bundle(tx, archive, keys=keys, anchors=anchors)


def _say_left_out(count: int) -> None:
    from cagg.cli._voice import say

    if count:
        say(f"{count} newer entries are under no checkpoint yet and were left out; `cagg maintain` signs one.")


def _anchors(parts: Components) -> tuple[Checkpoint, ...]:
    """Return the checkpoints in the places where ``maintain`` publishes them."""
    from cagg.ledger.anchors import collect

    collected = collect(parts.settings.anchors)
    if collected.problems:
        more = f" and {len(collected.problems) - 1} more" if len(collected.problems) > 1 else ""
        raise ConfigurationError(
            f"{collected.problems[0].rstrip('.')}{more}; mend it, or take the place out of `anchors` in the settings."
        )
    return collected.checkpoints
