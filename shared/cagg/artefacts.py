"""What a run read and made, as (name, digest): data sets, models, code. Contents and paths are never recorded.

Digests are text. A file or bytes: ``sha256:`` and the hex SHA-256 of the content. A folder: ``dirhash:`` and the hex
SHA-256 of one line per file, ``<hex SHA-256 of the file>  <path>`` LF, ascending by path; paths are relative with
``/``, links to files count as the files, empty folders do not count. Source: the "h1" hash of Go's module checksums
(golang.org/x/mod/sumdb/dirhash, Hash1), in hex as in-toto's digest set names it (in-toto attestation, digest_set.md,
``dirHash``). docs/ledger.md has the shell command that gives the same.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cagg.errors import InvalidInput

__all__ = ["Artefact", "Artefacts", "digest_of"]

_DIGEST = re.compile(r"[a-z0-9-]{1,32}:[0-9a-f]{32,128}")
_LONGEST_NAME = 200
_CHUNK = 1 << 20


def digest_of(value: str | os.PathLike[str] | bytes | bytearray | memoryview) -> str:
    """Return the digest of bytes, of a file or of a folder; a text that is a digest already is returned as it is.

    Files are read in pieces. Raises OSError when something cannot be read, or is neither a file nor a folder.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return f"sha256:{hashlib.sha256(value).hexdigest()}"
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value
    path = Path(value)
    if path.is_dir():
        return f"dirhash:{_folder(path)}"
    return f"sha256:{_file(path)}"


def _file(path: Path) -> str:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would never end
        raise OSError("it is neither a file nor a folder")
    with path.open("rb", buffering=0) as file:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_CHUNK))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _folder(root: Path) -> str:
    def refuse(problem: OSError) -> None:
        raise problem

    files: list[tuple[bytes, Path]] = []
    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=False):
        if any((Path(folder) / name).is_symlink() for name in folders):
            raise OSError("it holds a link to a folder; name the folder itself")
        for name in names:
            path = Path(folder) / name
            files.append((os.fsencode(path.relative_to(root).as_posix()), path))
    digest = hashlib.sha256()
    for relative, path in sorted(files):
        if b"\n" in relative:
            raise OSError("it holds a file whose name has a line break")
        digest.update(f"{_file(path)}  ".encode() + relative + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """Something that a run read or made.

    Attributes:
        name: what people call it; no path, no secret.
        digest: ``sha256:…`` and the like; None when it could not be read.
        role: dataset, model, code …; empty when it was not said.
    """

    name: str
    digest: str | None
    role: str = ""

    def body(self) -> dict[str, Any]:
        """Return it as ledger values."""
        return {"name": self.name, "digest": self.digest, "role": self.role or None}


@dataclass(slots=True)
class Artefacts:
    """The inputs and outputs of one run, each name once; threads may share it.

    Attributes:
        notes: what could not be read, one sentence each.
    """

    notes: list[str] = field(default_factory=list)
    _inputs: dict[str, Artefact] = field(default_factory=dict)
    _outputs: dict[str, Artefact] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_input(self, name: str, value: str | os.PathLike[str] | bytes, role: str) -> str | None:
        """Add what the run read; see :meth:`cagg.steps.running.GatedRun.add_input`."""
        return self._add(self._inputs, "input", name, value, role)

    def add_output(self, name: str, value: str | os.PathLike[str] | bytes, role: str) -> str | None:
        """Add what the run made."""
        return self._add(self._outputs, "output", name, value, role)

    def _add(
        self, among: dict[str, Artefact], what: str, name: str, value: str | os.PathLike[str] | bytes, role: str
    ) -> str | None:
        _check(what, name, value, role)
        digest = None
        try:
            digest = digest_of(value)
        except (OSError, ValueError, TypeError, BufferError) as problem:
            # ValueError: a path with a NUL character; TypeError: a path of bytes; BufferError: bytes with gaps
            why = getattr(problem, "strerror", None) or str(problem)  # without the path, which may hold a person's name
            with self._lock:
                self.notes.append(f"the {what} {name!r} could not be read ({why}), so its digest is unknown")
        with self._lock:
            known = among.get(name)
            if known is not None and known.digest is not None and digest is not None and known.digest != digest:
                raise InvalidInput(
                    f"the {what} {name!r} has the digest {known.digest[:19]}… already, now {digest[:19]}…; give the "
                    "other one another name."
                )
            if known is None or known.digest is None:
                among[name] = Artefact(name=name, digest=digest, role=role or (known.role if known else ""))
        return digest

    def inputs(self) -> list[dict[str, Any]]:
        """Return the inputs by name, as ledger values."""
        with self._lock:
            return [self._inputs[name].body() for name in sorted(self._inputs)]

    def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs by name, as ledger values."""
        with self._lock:
            return [self._outputs[name].body() for name in sorted(self._outputs)]


def _check(what: str, name: object, value: object, role: object) -> None:
    for text, part in ((name, "name"), (role, "role")):
        if not isinstance(text, str) or len(text) > _LONGEST_NAME or (part == "name" and not text.strip()):
            raise InvalidInput(
                f"the {part} of an {what} must be text of 1 to {_LONGEST_NAME} characters, got {text!r}."
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(f"the {part} {text!r} of an {what} holds bytes that are no UTF-8 text.") from None
    if not isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or value == "":
        raise InvalidInput(
            f"the {what} {name!r} must be a path, bytes, or a digest such as 'sha256:…', got {type(value).__name__}."
        )
