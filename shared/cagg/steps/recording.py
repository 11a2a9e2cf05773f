"""Decides inside one transaction: sweep, assess, conclude, hold, record. And what happens without a store."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cagg import evidence
from cagg.budget import reservations
from cagg.budget.tree import ancestors
from cagg.composition import Components
from cagg.deciding import PLANNER_VERSION, Question, conclude, propose, without_reviewer
from cagg.errors import BudgetUnknown, ReservationConflict, StoreBusy, StoreOutcomeUnknown, StoreUnavailable
from cagg.ledger.bodies import request_body
from cagg.ports import Transaction
from cagg.quantities import PPM, CarbonIntensity, Energy, Unit, carbon_of
from cagg.records import EntryDraft, EntryKind, Headroom, Reservation, ReservationState
from cagg.request import RequestIdentity
from cagg.steps.expiring import book_expired
from cagg.steps.outage import Outage, policy_body
from cagg.steps.provenance import append_unvalidated, before, software
from cagg.steps.settlements import append_next, record_settlement
from cagg.steps.situation import Situation, is_alive, store_unshared
from cagg.verdict import Admit, Decision, Defer, Deny, Review, Verdict
from cagg.windows import format_instant, from_epoch_ms, to_epoch_ms, to_milliseconds

__all__ = ["Recorder"]

logger = logging.getLogger("cagg")

_DEFAULT_MIN_DIFFERENCE_PPM = 50_000
"""5 % of the run's carbon: below that a wait is not worth its nuisance (design default)."""

_BUSY_RETRIES = 2
"""How often an ask is repeated while others keep the store busy. Own choice: each try has waited in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A decision, and the reservation as its transaction left it; None when it left none."""

    decision: Decision
    reservation: Reservation | None


class Recorder:
    """Turns a situation into a recorded decision."""

    def __init__(self, components: Components) -> None:
        self._components = components
        self._outage = Outage(components)

    # ---- with the store ------------------------------------------------------------------------------------------

    def decide(self, situation: Situation) -> Decision:
        """Decide, hold and record in one transaction; without a store apply ``on_store_down``.

        Decided again, before that counts as an outage: twice while others keep the store busy, and once when the answer
        to a COMMIT was lost and nothing was kept. Also once when a budget was tightened between the look at it and the
        hold, so that the verdict follows from the budget as it is.

        Raises:
            ReservationConflict: the hold was refused a second time.
        """
        if situation.store_down:
            return self._outage.decide(situation, situation.store_down)
        busy = lost = refused = 0
        while True:
            written: list[_Written] = []
            try:
                self._sweep()
                with self._components.store.transaction() as tx:
                    written.append(self._decide(tx, situation))
                return written[0].decision
            except StoreBusy as error:
                busy += 1
                if busy > _BUSY_RETRIES:
                    return self._outage.decide(situation, str(error))
            except StoreOutcomeUnknown as error:
                lost += 1
                found = self._after_lost_answer(situation, written[0]) if written else None
                if found is not None:
                    return found
                if lost > 1:
                    return self._outage.decide(situation, str(error))
            except StoreUnavailable as error:
                return self._outage.decide(situation, str(error))
            except ReservationConflict:
                refused += 1
                if refused > 1:
                    raise

    def _sweep(self) -> None:
        """End what is over, in a transaction of its own: it locks reservations and allotments of other requests."""
        with self._components.store.transaction() as tx:
            book_expired(tx, now=tx.now(), limit=20, pue_ppm=self._components.settings.pue_ppm)

    def _after_lost_answer(self, situation: Situation, written: _Written) -> Decision | None:
        """Return the decision whose COMMIT was not answered if it was kept; None = it was not, so decide again.

        Where the store cannot be read, that is an outage: to decide again would hold twice what may have been kept.
        """
        decision, busy = written.decision, 0
        while True:
            try:
                with self._components.store.transaction() as tx:  # waits for locks that a COMMIT under way still holds
                    entry = None if decision.decision_id is None else tx.entry(decision.decision_id)
                    own = tx.reservation(decision.request.identity.key)
                kept = entry is not None and _standing(own) == _standing(written.reservation)
                return decision if kept else None
            except StoreBusy as error:
                busy += 1
                if busy > _BUSY_RETRIES:
                    return self._outage.decide(situation, str(error))
            except StoreUnavailable as error:
                return self._outage.decide(situation, str(error))

    def _decide(self, tx: Transaction, situation: Situation) -> _Written:
        own, situation = self._incarnation(tx, situation)
        if situation.grid.fetched is not None:
            tx.put_forecast(situation.grid.fetched)
        path, covered = self._payer(tx, situation)
        question = self._question(situation, own, path, budget_known=_known(tx, path))
        proposal = propose(question, situation.grid.series)
        at_now: Sequence[Headroom] = ()
        at_plan: Sequence[Headroom] = ()
        if path is not None and question.budget_known:
            at_now = self._assess(tx, situation, path, covered, question.now_ms)
            at_plan = at_now
            if proposal.start_ms > question.now_ms:
                at_plan = self._assess(tx, situation, path, covered, proposal.start_ms)
            self._outage.remember(path, at_now)
        verdict = without_reviewer(conclude(question, proposal, at_plan, at_now))
        forecast, blobs = evidence.forecast_body(situation.grid)
        asks = own.asks if own is not None else 0
        body = {
            "request": request_body(situation.request),
            "ask": asks,
            "first_asked_at": format_instant(situation.first_asked_at),
            "asked_at": format_instant(situation.now),
            "planner": PLANNER_VERSION,
            "policy": policy_body(self._components.settings),
            "options": evidence.options_body(situation.request.options),
            "estimate": evidence.estimate_body(situation.estimate),
            "planning_intensity_milligrams_per_kwh": _text(situation.planning_intensity),
            "planning_basis": situation.planning_basis,
            "forecast": forecast,
            "question": evidence.question_body(question),
            "proposal": evidence.proposal_body(proposal),
            "budgets": evidence.budgets_body(at_plan),
            "budgets_now": evidence.budgets_body(at_now),
            "verdict": evidence.verdict_body(verdict),
            "outer_key": situation.outer_key,
            "notes": _notes(situation, unshared=question.store_unshared),
            "parents": before(tx, situation.outer_decision_id, situation.outer_key, situation.request, asks),
            "software": software(),
        }
        key = situation.request.identity.key
        entry = append_next(
            tx, EntryDraft(kind=EntryKind.DECISION, request_key=key, ordinal=asks, body=body, blobs=blobs)
        )
        if isinstance(verdict, Deny | Review):
            append_unvalidated(tx, situation.request, entry.entry_id)
        epoch = None
        if situation.outer_key is None or path is not None:
            epoch = self._hold(tx, situation, question, own, verdict, at_plan, at_now)
        decision = Decision(
            verdict=verdict,
            request=situation.request,
            decision_id=entry.entry_id,
            asked_at=situation.now,
            first_asked_at=situation.first_asked_at,
            lease_epoch=epoch,
            outer_key=situation.outer_key,
            notes=(*situation.grid.steps, *_unshared_notes(situation, unshared=question.store_unshared)),
        )
        return _Written(decision=decision, reservation=tx.reservation(situation.request.identity.key))

    def _incarnation(self, tx: Transaction, situation: Situation) -> tuple[Reservation | None, Situation]:
        """Find the reservation that this ask continues; an attempt that ran and ended gets a new incarnation."""
        identity = situation.request.identity
        while True:
            own = tx.reservation(identity.key)
            if own is None:
                break
            if own.state is ReservationState.WAITING:
                break
            if own.lease_epoch == 0:
                own = reservations.reopen(tx, own.request_key)  # ended at zero before it started, and woken after all
                break
            identity = replace(identity, incarnation=identity.incarnation + 1)
        if identity is situation.request.identity:
            return own, situation
        return own, replace(situation, request=replace(situation.request, identity=identity))

    def _payer(self, tx: Transaction, situation: Situation) -> tuple[str | None, frozenset[str]]:
        """Return the path that pays for this request itself, and the paths that an enclosing run's hold covers.

        An inner gate draws on the outer reservation: budgets from the outer's path up are not asked twice. Budgets
        that the outer one does not pay for, below its path or beside it, are this request's own.
        """
        path = situation.request.options.budget
        covered: frozenset[str] = frozenset()
        if situation.outer_key is not None:
            outer = tx.reservation(situation.outer_key)
            if outer is not None and outer.budget_path is not None and is_alive(outer, tx.now()):
                covered = frozenset(ancestors(outer.budget_path))
        return (None if path in covered else path), covered

    def _question(
        self, situation: Situation, own: Reservation | None, path: str | None, *, budget_known: bool
    ) -> Question:
        settings, request, guess = self._components.settings, situation.request, situation.estimate
        share = request.options.min_difference
        return Question(
            now_ms=to_epoch_ms(situation.now, up=True),
            deadline_ms=None if situation.deadline is None else to_epoch_ms(situation.deadline),
            expected_energy_millijoules=guess.expected_energy.millijoules,
            upper_energy_millijoules=guess.upper_energy.millijoules,
            expected_duration_ms=to_milliseconds(guess.expected_duration),
            upper_duration_ms=to_milliseconds(guess.upper_duration),
            wake_margin_ms=to_milliseconds(request.host.wake_margin) if request.host.wake_margin else 0,
            shortest_wait_ms=to_milliseconds(request.host.shortest_wait) if request.host.shortest_wait else 0,
            min_difference_ppm=_DEFAULT_MIN_DIFFERENCE_PPM if share is None else round(float(share) * PPM),
            materiality_millijoules=settings.materiality.millijoules,
            attempt=request.identity.attempt,
            deferrals=0 if own is None else own.deferrals,
            max_deferrals=settings.max_deferrals,
            can_defer=request.host.can_defer,
            inside_outer=situation.outer_key is not None,
            zone_known=situation.zone_known,
            mode=settings.mode,
            purpose=request.options.resolved_purpose,
            budget_path=path,
            budget_known=budget_known,
            store_unshared=store_unshared(self._components, request),
        )

    def _assess(
        self, tx: Transaction, situation: Situation, path: str, covered: Collection[str], at_ms: int
    ) -> Sequence[Headroom]:
        energy = situation.estimate.upper_energy
        carbon = None
        if situation.planning_intensity is not None:
            planning = CarbonIntensity(milligrams_per_kwh=situation.planning_intensity)
            carbon = carbon_of(energy, planning).micrograms
        found = reservations.assess(
            tx,
            path=path,
            amounts={Unit.CARBON: carbon, Unit.ENERGY: energy.millijoules},
            energy=energy,
            at=from_epoch_ms(at_ms),
            ignoring=situation.request.identity.key,
            pue_ppm=self._components.settings.pue_ppm,
        )
        return tuple(item for item in found if item.allotment.budget.path not in covered)

    def _hold(
        self,
        tx: Transaction,
        situation: Situation,
        question: Question,
        own: Reservation | None,
        verdict: Verdict,
        at_plan: Sequence[Headroom],
        at_now: Sequence[Headroom],
    ) -> int | None:
        """Place what the verdict calls for; returns the lease epoch of an admitted run."""
        key = situation.request.identity.key
        match verdict:
            case Admit():
                wanted, headrooms, deferred = ReservationState.RUNNING, at_now, 0
                planned = situation.now
            case Defer():
                wanted, headrooms, deferred = ReservationState.WAITING, at_plan, 1
                planned = verdict.until
            case Review() | Deny():
                if own is not None:  # what it held stays until the host lets go of it, or until deadline + grace
                    reservations.remember(tx, replace(own, asks=own.asks + 1))
                return None
        reservation = self._reservation(tx, situation, own, planned_ms=to_epoch_ms(planned), deferred=deferred)
        over = frozenset(item.allotment.allotment_id for item in headrooms if not item.fits)
        reservations.hold(tx, reservation, headrooms, allow_over=over)
        if wanted is ReservationState.WAITING:
            return None
        power = question.expected_energy_millijoules * 1_000 // max(1, question.expected_duration_ms)
        started = reservations.start(
            tx,
            key,
            lease_seconds=int(self._components.settings.lease.total_seconds()),
            expected_power_milliwatts=power,
        )
        return started.lease_epoch

    def _reservation(
        self, tx: Transaction, situation: Situation, own: Reservation | None, *, planned_ms: int, deferred: int
    ) -> Reservation:
        identity, now = situation.request.identity, tx.now()
        planned = from_epoch_ms(planned_ms)
        if own is not None:
            return replace(
                own,
                budget_path=situation.request.options.budget,
                asks=own.asks + 1,
                deferrals=own.deferrals + deferred,
                planned_start=planned,
                upper_energy=situation.estimate.upper_energy,
                run_reference=situation.request.run_reference,
                updated_at=now,
            )
        return Reservation(
            request_key=identity.key,
            series_key=identity.series_key,
            host=identity.host,
            root_run_id=identity.root_run_id,
            task_key=identity.task_key,
            attempt=identity.attempt,
            budget_path=situation.request.options.budget,
            state=ReservationState.WAITING,
            first_asked_at=situation.first_asked_at,
            deadline=situation.deadline,
            asks=1,
            deferrals=deferred,
            planning_intensity_milligrams_per_kwh=situation.planning_intensity,
            planning_basis=situation.planning_basis,
            planned_start=planned,
            upper_energy=situation.estimate.upper_energy,
            holds=(),
            lease_until=None,
            lease_epoch=0,
            last_beat_at=None,
            started_at=None,
            used_energy=Energy.ZERO,
            last_power_milliwatts=0,
            encloses_run=situation.request.encloses_run,
            run_reference=situation.request.run_reference,
            created_at=now,
            updated_at=now,
        )

    # ---- small questions -----------------------------------------------------------------------------------------

    def release(self, identity: RequestIdentity, *, reference: str) -> bool:
        """Give back the waiting reservation of a request; False when there is none. ``reference``: see the gate.

        Raises:
            StoreUnavailable: the store is down; ``maintain`` will release it later.
        """
        with self._components.store.transaction() as tx:
            own = tx.reservation(identity.key)
            if own is None or own.state is not ReservationState.WAITING:
                return False
            if reference and own.run_reference != reference:
                return False
            record_settlement(tx, own, reservations.release(tx, identity.key), None)
            return True


def _standing(reservation: Reservation | None) -> tuple[ReservationState, int, int] | None:
    """Return what tells one ask's reservation from any other's of the same request."""
    return None if reservation is None else (reservation.state, reservation.lease_epoch, reservation.asks)


def _known(tx: Transaction, path: str | None) -> bool:
    if path is None:
        return True
    try:
        reservations.require_path(tx, path)
    except BudgetUnknown:
        return False
    return True


def _unshared_notes(situation: Situation, *, unshared: bool) -> list[str]:
    path = situation.request.options.budget
    if not unshared or path is None:
        return []
    note = (
        f"budget {path} is not enforced: the engine may run work on several machines and the store is one file, which "
        "would be a budget per machine; set `store` to one that they share, postgresql://…"
    )
    return [note]


def _notes(situation: Situation, *, unshared: bool) -> list[str]:
    options = situation.request.options
    notes = _unshared_notes(situation, unshared=unshared)
    if options.interruptible:
        notes.append("interruptible: planned in one piece by this version")
    if options.capacity == "reserved":
        notes.append("capacity reserved: the idle share is not known yet, the whole energy was compared")
    return notes


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
