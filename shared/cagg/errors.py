"""Every error cagg raises. One root; each class is named by what its reader can do about it.

A message says what is wrong, which value or place it concerns, and what to do. Outcomes of the gate
("budget exhausted", "the grid is dirty") are verdicts, not errors; the one exception is
:class:`NotAdmitted`, which carries such a verdict out of code that has no other way to hear it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cagg.verdict import Decision

__all__ = [
    "BudgetUnknown",
    "CaggError",
    "ConfigurationError",
    "DeferralUnsupported",
    "HelperLost",
    "HostUnavailable",
    "IdempotencyConflict",
    "IntensityUnavailable",
    "InvalidInput",
    "LedgerDamaged",
    "MeterUnavailable",
    "MissingExtra",
    "MustBeKept",
    "NotAdmitted",
    "NotProven",
    "ReservationConflict",
    "SigningRefused",
    "StoreBusy",
    "StoreOutcomeUnknown",
    "StoreUnavailable",
    "ZoneUnknown",
]


class CaggError(Exception):
    """Root of every error that cagg raises on purpose."""


class InvalidInput(CaggError, ValueError):
    """A value given by the caller cannot be used; correct the value."""


class ZoneUnknown(InvalidInput):
    """A grid zone is unknown or ambiguous; name it with its provider, e.g. ``neso:GB``."""


class ConfigurationError(CaggError):
    """The settings cannot be read or contradict each other; correct the place that is named."""


class MissingExtra(CaggError, ImportError):
    """An optional package is needed; install the extra that the message names."""


class StoreUnavailable(CaggError):
    """The store cannot be read or written now; restore it, the gate applies ``on_store_down`` meanwhile."""


class StoreBusy(StoreUnavailable):
    """Another program held what this change needs for too long; nothing of the change was kept, try it again."""


class StoreOutcomeUnknown(StoreUnavailable):
    """The answer to a COMMIT was lost, so the change may or may not have been kept; read again before deciding."""


class IntensityUnavailable(CaggError):
    """A grid source has no usable answer; the chain falls back and says so."""


class MeterUnavailable(CaggError):
    """An energy source cannot be read on this host; the reading shows null with the reason."""


class BudgetUnknown(CaggError):
    """Nobody created this budget path; create it with ``cagg budget set``."""


class ReservationConflict(CaggError):
    """The same request was asked for with other amounts, or by a worker that was replaced meanwhile."""


class IdempotencyConflict(CaggError):
    """The same ledger key was used for another body; an entry is never overwritten."""


class LedgerDamaged(CaggError):
    """The ledger's stored bytes contradict each other; run ``cagg ledger verify``."""


class MustBeKept(CaggError):
    """A personal value may not be deleted yet; the message says why and until when."""


class NotProven(CaggError):
    """What a proof was asked for is not so, or not signed yet; the message says which and what to do."""


class SigningRefused(CaggError):
    """A checkpoint would contradict an earlier one; nothing was signed."""


class DeferralUnsupported(CaggError):
    """The host cannot give its slot back here without repeating finished work; the message names the remedy."""


class HelperLost(CaggError):
    """A process that was started to help ended before its work was done; run it again, in one process if need be."""


class HostUnavailable(CaggError):
    """An engine's API cannot be asked; the message names what it said and what to do."""


class NotAdmitted(CaggError):
    """The gate did not admit the run.

    Attributes:
        decision: the recorded decision with its verdict and evidence.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.verdict.message)
