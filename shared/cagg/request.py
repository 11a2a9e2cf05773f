"""What a caller asks for: the options people write, and the identity that stays the same across deferrals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self, TypeVar

from cagg.engine_run import EngineRun
from cagg.errors import InvalidInput
from cagg.quantities import Energy, Power
from cagg.windows import parse_duration, parse_instant, parse_time_of_day, require_utc

__all__ = [
    "Capacity",
    "GateOptions",
    "HostProfile",
    "Kind",
    "OnDeny",
    "Purpose",
    "Request",
    "RequestIdentity",
    "Risk",
    "check_budget_path",
]


class Kind(StrEnum):
    """What the work is."""

    TRAINING = "training"
    VALIDATION = "validation"
    INFERENCE = "inference"
    REGENERATION = "regeneration"
    OTHER = "other"


class Purpose(StrEnum):
    """What depends on the work, hence what a limit or an outage does to it."""

    RELEASE = "release"
    """a release waits for it: a deny, a skip or an outage fails closed (default for validation)"""
    WORK = "work"
    """an enforced budget denies it (default for the rest)"""
    MONITOR = "monitor"
    """never blocked: what passes a limit is booked as overrun"""


class Risk(StrEnum):
    """Risk class of what is validated."""

    MINIMAL = "minimal"
    LIMITED = "limited"
    HIGH = "high"
    CRITICAL = "critical"


class OnDeny(StrEnum):
    """What a denied task does in its engine."""

    FAIL = "fail"
    SKIP = "skip"


class Capacity(StrEnum):
    """Whether the machine is given back while the work waits."""

    ELASTIC = "elastic"
    RESERVED = "reserved"
    """the machine idles meanwhile, so only the dynamic energy moves"""


def check_budget_path(path: str) -> str:
    """Return the path; raises InvalidInput unless it is names joined by single slashes."""
    parts = path.split("/")
    if not path or any(not part or part != part.strip() or part in {".", ".."} for part in parts):
        raise InvalidInput(f"budget path {path!r} must be names joined by '/', for example 'acme/ml/nightly'.")
    if len(path) > 512 or len(parts) > 16:
        raise InvalidInput(f"budget path {path[:40]!r}… is too long; use at most 16 names and 512 characters.")
    if any(ord(character) < 32 for character in path):
        raise InvalidInput(f"budget path {path!r} must not hold control characters.")
    return path


_Choice = TypeVar("_Choice", bound=StrEnum)


def _choice(kind: type[_Choice], value: _Choice | str | None, option: str) -> _Choice | None:
    if value is None:
        return None
    try:
        return kind(value)
    except ValueError:
        raise InvalidInput(f"{option} {value!r} is unknown; use one of {', '.join(kind)}.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """Everything a person can say about a gated run. All optional; text is converted to values.

    This is the one signature: decorators, operators, the command line and the defaults in ``cagg.toml`` take
    exactly these names. None means "not said here": the next weaker source decides.

    Attributes:
        zone: grid zone, ``"neso:GB"`` or a bare code that only one provider knows.
        duration: how long the work runs, ``"30m"``, ``"PT30M"`` or a timedelta; None = learned.
        energy: how much energy it uses, ``"1.5 kWh"``; None = learned.
        power: mean power instead of energy, ``"250 W"``; needs a duration, declared or learned.
        finish_by: an instant with an offset, or a time of day such as ``"06:00"``: the first one after the
            scheduled start in the schedule's time zone.
        max_wait: longest wait for the start, instead of finish_by.
        interruptible: the work may be paused and resumed.
        resume_cost: what one resume costs, energy or minutes at the run's power.
        capacity: whether the machine is given back while waiting.
        budget: path of the budget that pays, ``"acme/ml/nightly"``.
        kind: training, validation, inference, regeneration or other.
        purpose: release, work or monitor; None = release for validation, work for the rest.
        risk: minimal, limited, high or critical; None = limited.
        work_item: what the change is for: an issue, a pull request, a model version.
        min_difference: least worthwhile difference as a share of the run's carbon, ``0.05`` or ``"5%"``.
        on_deny: fail or skip.
    """

    zone: str | None = None
    duration: str | timedelta | None = None
    energy: str | Energy | None = None
    power: str | Power | None = None
    finish_by: str | datetime | None = None
    max_wait: str | timedelta | None = None
    interruptible: bool = False
    resume_cost: str | Energy | timedelta | None = None
    capacity: str | Capacity | None = None
    budget: str | None = None
    kind: str | Kind | None = None
    purpose: str | Purpose | None = None
    risk: str | Risk | None = None
    work_item: str | None = None
    min_difference: str | float | None = None
    on_deny: str | OnDeny | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("zone", "budget", "work_item"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InvalidInput(f"{name} must be text, got {value!r}.")
            if value is not None:
                _check_characters(value, name)
        if not isinstance(self.interruptible, bool):
            raise InvalidInput(f"interruptible must be True or False, got {self.interruptible!r}.")
        for name in ("duration", "max_wait"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str | timedelta):
                    raise InvalidInput(f"{name} must be text with a unit or a timedelta, got {value!r}; write '30m'.")
                put(name, parse_duration(value, name))
        if self.energy is not None and not isinstance(self.energy, Energy):
            put("energy", Energy.parse(_text(self.energy, "energy", "1.5 kWh")))
        if self.power is not None and not isinstance(self.power, Power):
            put("power", Power.parse(_text(self.power, "power", "250 W")))
        for name in ("energy", "power"):
            value = getattr(self, name)
            if value is not None and value in (Energy(millijoules=0), Power(milliwatts=0)):
                raise InvalidInput(f"{name} must be more than zero; leave it out if it is unknown.")
        if self.energy is not None and self.power is not None:
            raise InvalidInput("energy and power are both given; keep one of them.")
        self._convert_deadline()
        if isinstance(self.resume_cost, str):
            try:
                put("resume_cost", Energy.parse(self.resume_cost))
            except InvalidInput:
                put("resume_cost", parse_duration(self.resume_cost, "resume_cost"))
        if self.budget is not None:
            check_budget_path(self.budget)
        put("capacity", _choice(Capacity, self.capacity, "capacity"))
        put("kind", _choice(Kind, self.kind, "kind"))
        put("purpose", _choice(Purpose, self.purpose, "purpose"))
        put("risk", _choice(Risk, self.risk, "risk"))
        put("on_deny", _choice(OnDeny, self.on_deny, "on_deny"))
        if self.min_difference is not None:
            put("min_difference", _share(self.min_difference))

    def _convert_deadline(self) -> None:
        if self.finish_by is not None and self.max_wait is not None:
            raise InvalidInput("finish_by and max_wait are both given; keep one of them.")
        if self.finish_by is not None:
            if not isinstance(self.finish_by, str | datetime):
                raise InvalidInput(
                    f"finish_by must be a time of day or an instant with an offset, got {self.finish_by!r}."
                )
            if not (isinstance(self.finish_by, str) and parse_time_of_day(self.finish_by) is not None):
                if isinstance(self.finish_by, str) and "T" not in self.finish_by.upper() and "-" not in self.finish_by:
                    raise InvalidInput(
                        f"finish_by {self.finish_by!r} is not a date and time, nor a time of day; write '06:00' or "
                        "2026-11-23T06:00:00+00:00."
                    )
                object.__setattr__(self, "finish_by", parse_instant(self.finish_by, "finish_by"))

    def over(self, weaker: GateOptions) -> GateOptions:
        """Return these options with everything that is not said here taken from the weaker ones.

        energy and power are one question, finish_by and max_wait another: saying one hides the weaker other.
        """
        merged: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(weaker, item.name)
            merged[item.name] = (mine or theirs) if item.name == "interruptible" else (theirs if mine is None else mine)
        for one, other in (
            ("energy", "power"),
            ("power", "energy"),
            ("finish_by", "max_wait"),
            ("max_wait", "finish_by"),
        ):
            if getattr(self, one) is not None:
                merged[other] = None
        return GateOptions(**merged)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "the options") -> Self:
        """Build options from a table; raises InvalidInput for a name that does not exist."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidInput(f"{where}: unknown option {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return what is said here in plain JSON values; :meth:`from_mapping` reads it back without loss."""
        return {
            item.name: _as_json(value)
            for item in fields(self)
            if (value := getattr(self, item.name)) is not None and value is not False
        }

    @property
    def resolved_purpose(self) -> Purpose:
        """The purpose after the default: release for validation, work for the rest."""
        if self.purpose is not None:
            return Purpose(self.purpose)
        return Purpose.RELEASE if self.kind == Kind.VALIDATION else Purpose.WORK

    @property
    def resolved_risk(self) -> Risk:
        """The risk class after the default (limited)."""
        return Risk(self.risk) if self.risk is not None else Risk.LIMITED


def _as_json(value: object) -> str | float | bool:
    match value:
        case Energy():
            return f"{value.millijoules} mJ"
        case Power():
            return f"{value.milliwatts} mW"
        case timedelta():
            microseconds = value // timedelta(microseconds=1)
            return f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06} s"
        case datetime():
            return value.isoformat()
        case bool() | float():
            return value
        case _:
            return str(value)


def _check_characters(text: str, name: str) -> None:
    """Refuse what is no character: lone surrogates, as Python makes them from bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{name} {text!r} holds bytes that are not UTF-8 text; write it in UTF-8.") from None


def _text(value: object, option: str, example: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{option} {value!r} has no unit; write it as text, for example {example!r}.")
    return value


def _share(value: str | float) -> float:
    original = value
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise InvalidInput(f"min_difference {original!r} must be a share such as 0.05 or '5%'.") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInput(f"min_difference {original!r} must lie between 0 and 1 (0 % and 100 %).")
    return float(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestIdentity:
    """Who asks. The same across deferrals, new for each attempt.

    Attributes:
        host: the engine, for example ``prefect``, ``local`` or ``shell``.
        root_run_id: the run that a person sees; nested runs share it.
        task_key: what runs, stable from night to night: history is kept by it.
        ordinal: map index, or how many calls of this key came before in this run.
        inputs_digest: hex digest of the inputs, empty when the host has none.
        attempt: 1 for the first try of the engine, 2 for its first retry.
        incarnation: counted by the gate when an attempt that had ended is run once more, for example a task whose
            result was not persisted and that its engine repeats after a deferral; its use is charged again.
    """

    host: str
    root_run_id: str
    task_key: str
    ordinal: int = 0
    inputs_digest: str = ""
    attempt: int = 1
    incarnation: int = 0

    def __post_init__(self) -> None:
        for name in ("host", "root_run_id", "task_key"):
            value = getattr(self, name)
            if not value:
                raise InvalidInput(f"a request identity needs {name}.")
            _check_characters(value, name)
        _check_characters(self.inputs_digest, "inputs_digest")
        if self.ordinal < 0 or self.attempt < 1:
            raise InvalidInput(
                f"ordinal must be 0 or more and attempt 1 or more, got {self.ordinal} and {self.attempt}."
            )

    @property
    def series_key(self) -> str:
        """Hex key that all attempts of this request share."""
        return _digest(["cagg/series/1", self.host, self.root_run_id, self.task_key, self.ordinal, self.inputs_digest])

    @property
    def key(self) -> str:
        """Hex key of this attempt: the idempotency key of its reservation and entries."""
        return _digest(["cagg/request/1", self.series_key, self.attempt, self.incarnation])


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """What the core has to know about where the work runs.

    Attributes:
        name: the engine, as in RequestIdentity.host.
        wake_margin: how long the host may take from the planned instant to running code.
        shortest_wait: waits below this run now, because the host cannot wake reliably.
        can_defer: False where nothing could continue the run later; the gate then never says Defer.
        remote_workers: True where runs may land on several machines; a store in one file would then be a budget per
            machine, so the gate enforces only with a store that they share.
    """

    name: str
    wake_margin: timedelta = timedelta(0)
    shortest_wait: timedelta = timedelta(0)
    can_defer: bool = True
    remote_workers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One ask, as an adapter hands it to the gate.

    Attributes:
        identity: who asks.
        options: what the person said, already merged with the adapter's own defaults; settings are merged by the gate.
        host: abilities of the engine.
        scheduled_start: when the schedule wanted the run; None for manual runs, which count from the first ask.
        schedule_time_zone: IANA zone of the schedule; None = the settings' timezone.
        run_reference: how the engine itself names the very task run that waits, for `cagg maintain` to ask about it;
            empty where the root run says enough. Opaque to the core.
        encloses_run: True when this gate wraps the whole root run, so that gates inside it draw on its reservation.
        labels: engine names and ids for the record (flow, deployment, DAG); text only, no secrets, no personal names.
        code: version of the code (cagg.checkout.CodeVersion.facts); empty = the gate looks at the checkout.
        engine_run: what the engine calls the run; None outside of any engine.
    """

    identity: RequestIdentity
    options: GateOptions
    host: HostProfile
    scheduled_start: datetime | None = None
    schedule_time_zone: str | None = None
    run_reference: str = ""
    encloses_run: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    engine_run: EngineRun | None = None

    def __post_init__(self) -> None:
        if self.scheduled_start is not None:
            object.__setattr__(self, "scheduled_start", require_utc(self.scheduled_start, "scheduled_start"))
