"""Turns what PostgreSQL says into one sentence with a remedy, without the password."""

from __future__ import annotations

from sqlalchemy import exc

from cagg.errors import StoreBusy, StoreUnavailable
from cagg.masking import masked_message

__all__ = ["explained", "original_of", "state_of", "unreachable"]

_BY_STATE = {
    "28P01": ("refuses the password", "correct it in CAGG_STORE or in the password file ~/.pgpass"),
    "28000": ("refuses this user", "let the server's pg_hba.conf admit it, or name another user in the store address"),
    "3D000": ("has no such database", "create it with 'createdb', then run 'cagg store migrate'"),
    "3F000": ("has no such schema", "run 'cagg store migrate' as a role that may create it"),
    "42501": ("lacks a right", "give this role its rights with 'cagg store grants --apply', run by the store's owner"),
    "42P01": ("has no tables of cagg for this role", "run 'cagg store migrate'"),
    "42703": ("lacks a column", "run 'cagg store migrate'"),
    "42883": ("lacks a function", "run 'cagg store migrate'"),
    "25006": ("is read-only here", "name the primary server, and write outside of a snapshot"),
    "40P01": ("found two programs waiting for each other", "try again; nothing of this change was kept"),
    "40001": ("saw another program change the same rows", "try again; nothing of this change was kept"),
    "55P03": ("is locked by another program for too long", "end what holds it (see pg_stat_activity) and try again"),
    "57014": ("took too long over a statement", "look at the server's load, then try again"),
    "25P03": ("ended a transaction that stood still", "try again; nothing of this change was kept"),
    "25P04": ("ended a transaction that took too long", "try again; nothing of this change was kept"),
    "25P02": ("refuses to go on after an error in the same transaction", "look at the first error"),
    "53300": ("has no connection left", "raise max_connections, or put PgBouncer before the server"),
    "53100": ("cannot grow because the disk is full", "free some space on the server's disk"),
    "57P01": ("was shut down", "wait until it is back"),
    "57P02": ("crashed", "wait until it has recovered"),
    "57P03": ("is starting up", "wait a moment"),
    "CG001": ("refused to change an append-only row", "leave recorded rows as they are"),
    "CG002": ("refused a change of a budget that contradicts another", "run 'cagg doctor', then try again"),
    "CG003": ("has lost the budget of an allotment", "restore a backup of the store"),
    "CG004": ("refused an entry, because the log it belongs to is frozen", "upgrade cagg, or try again"),
    "22021": ("cannot keep this text", "make the database with the encoding UTF8, and leave out NUL characters"),
    "XX001": ("is damaged", "restore a backup, then run 'cagg ledger verify'"),
}
_BY_WORDS = (
    ("password authentication failed", *_BY_STATE["28P01"]),
    ("no password supplied", "asks for a password", "put it in CAGG_STORE or in the password file ~/.pgpass"),
    ("no pg_hba.conf entry", *_BY_STATE["28000"]),
    ("does not exist", *_BY_STATE["3D000"]),
    ("too many connections", *_BY_STATE["53300"]),
    ("too many clients", *_BY_STATE["53300"]),
    ("remaining connection slots", *_BY_STATE["53300"]),
    ("starting up", *_BY_STATE["57P03"]),
    ("shutting down", *_BY_STATE["57P01"]),
    ("recovery mode", *_BY_STATE["57P02"]),
    ("connection refused", "does not answer", "start the server, or correct host and port of the store address"),
    ("could not translate host name", "has an unknown host", "correct the host of the store address"),
    ("failed to resolve host", "has an unknown host", "correct the host of the store address"),
    ("timeout", "does not answer in time", "check the server and the network between"),
    ("certificate", "has a certificate that is not trusted", "correct sslmode and sslrootcert of the store address"),
    ("ssl", "could not agree on encryption", "correct sslmode of the store address"),
    ("closed the connection", "closed the connection", "wait until it is back, then try again"),
    ("connection is closed", "closed the connection", "wait until it is back, then try again"),
    ("connection is lost", "closed the connection", "wait until it is back, then try again"),
    ("connection", "lost the connection", "check the server and the network between"),
    ("nul", *_BY_STATE["22021"]),
)


_BUSY = frozenset({"40P01", "40001", "55P03", "57014"})
"""What another attempt may get past: a circle of locks, a meeting, a lock or a statement that took too long."""


def original_of(error: BaseException) -> BaseException:
    """Return the driver's own error."""
    return error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error


def state_of(error: BaseException) -> str:
    """Return the SQLSTATE; empty when the error has none."""
    return str(getattr(original_of(error), "sqlstate", None) or "")


def unreachable(error: BaseException) -> bool:
    """True for a connection that is gone, as opposed to a statement that was refused."""
    kinds = {kind.__name__ for kind in type(original_of(error)).__mro__}
    state = state_of(error)
    return not kinds.isdisjoint({"OperationalError", "InterfaceError"}) and (
        state in {"", "57P01", "57P02", "57P03", "25P03"} or state.startswith("08")
    )


def explained(place: str, error: BaseException) -> StoreUnavailable:
    """Return the error a caller sees for what the driver raised about ``place``, an address without its password.

    :class:`StoreBusy` where nothing is wrong with the server and nothing was kept, so that the caller may try again.
    """
    original = original_of(error)
    state = state_of(error)
    diagnosis = getattr(original, "diag", None)
    said = getattr(diagnosis, "message_primary", None) or " ".join(str(original).split()) or type(original).__name__
    detail = masked_message(str(said)).rstrip(".")
    found = _BY_STATE.get(state)
    if found is None and not state:
        lowered = detail.lower()
        found = next(((what, remedy) for sign, what, remedy in _BY_WORDS if sign in lowered), None)
    if found is None and state.startswith("23"):
        return StoreUnavailable(
            f"the store {place} refused a row that breaks one of its rules ({detail}); nothing of this change was "
            "kept, try again and run 'cagg ledger verify' if it stays."
        )
    if found is None:
        found = f"cannot be used ({type(original).__name__} {state}".rstrip() + ")", "check it with 'cagg doctor'"
    what, remedy = found
    kind = StoreBusy if state in _BUSY else StoreUnavailable
    return kind(f"the store {place} {what} ({detail}); {remedy}.")
