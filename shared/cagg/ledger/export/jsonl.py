"""The log as JSON lines: every body as it is stored, byte for byte, with its place and its leaf hash.

A line is ``{"index":<place>,"leaf_hash":"<hex>","body":<the stored bytes>}`` and LF. What stands between ``"body":``
and the last ``}`` of the line is what was hashed: SHA-256 over a zero byte and these bytes is the leaf hash (RFC 6962,
June 2013, section 2.1), and the leaf hashes of all lines of one log, in order, give its root; which log it is, the body
says (``log``). The bytes are canonical (RFC 8785, June 2020), so a reader that parses the line and writes the body
canonically finds them again.
"""

from __future__ import annotations

from collections.abc import Iterator

from cagg.ledger.export.reader import LogReader, StoreReader

__all__ = ["chunks"]


def chunks(reader: LogReader | StoreReader) -> Iterator[bytes]:
    """Yield one line per entry; raises LedgerDamaged as the reader does."""
    for item in reader:
        leaf = item.entry.leaf_hash.hex()
        yield b'{"index":%d,"leaf_hash":"%b","body":%b}\n' % (item.index, leaf.encode("ascii"), item.entry.body)
