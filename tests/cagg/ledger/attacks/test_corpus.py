"""Every attack of the corpus is caught by the check that the table names, and by nothing weaker."""

from __future__ import annotations

import pytest

from cagg.ledger.report import Assurance, VerifyReport
from cagg.testing.tampering import ATTACKS, Attack, AttackedLog, Needs, Target, attacked

ORDER = (Needs.NOTHING, Needs.KEY, Needs.CHECKPOINT)
"""What an auditor brings, least first."""


def applies(attack: Attack, target: Target) -> bool:
    """True when this backend lets the attack happen."""
    return not attack.backend or (attack.backend == "postgresql") == target.on_postgresql


def found(report: VerifyReport) -> set[str]:
    """The kinds of failures; a report with one must not sound well."""
    if report.failures:
        assert report.assurance is Assurance.NONE
        assert "verified" not in report.sentence
    return {str(failure.kind) for failure in report.failures}


def test_the_untouched_log_is_verified(log: AttackedLog) -> None:
    with attacked(log) as target:
        assert target.verdict(Needs.NOTHING).assurance is Assurance.CONSISTENT
        assert target.verdict(Needs.KEY).assurance is Assurance.SIGNED
        report = target.verdict(Needs.CHECKPOINT)
    assert (report.failures, report.assurance, report.notes) == ((), Assurance.ANCHORED, ())
    assert report.size + report.queued == 300


@pytest.mark.parametrize("attack", [item for item in ATTACKS if item.refused is None], ids=lambda attack: attack.name)
def test_an_attack_is_caught_by_what_the_table_says(log: AttackedLog, attack: Attack) -> None:
    with attacked(log) as target:
        if not applies(attack, target):
            return
        attack.apply(target)
        if attack.needs in (Needs.NOBODY, Needs.HARMLESS):
            assert attack.by == frozenset()
            for needs in ORDER:
                assert target.verdict(needs).failures == ()
            return
        at = ORDER.index(attack.needs)
        for needs in ORDER[:at]:
            assert found(target.verdict(needs)) == set(), f"caught with {needs}, better than the table says"
        by, told = {str(kind) for kind in attack.by}, set()
        for needs in ORDER[at:]:
            kinds = found(target.verdict(needs))
            assert by & kinds, f"with {needs}: {kinds}"
            told |= kinds
        assert by <= told


@pytest.mark.parametrize(
    "attack", [item for item in ATTACKS if item.refused is not None], ids=lambda attack: attack.name
)
def test_an_attack_is_refused_as_the_table_says(log: AttackedLog, attack: Attack) -> None:
    assert attack.refused is not None
    with attacked(log) as target, pytest.raises(attack.refused):
        attack.apply(target)


def test_the_corpus_names_each_attack_once_and_says_what_catches_it() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names)
    for attack in ATTACKS:
        caught = bool(attack.by) or attack.refused is not None
        assert caught == (attack.needs not in (Needs.NOBODY, Needs.HARMLESS)), attack.name
        assert attack.remark or attack.needs not in (Needs.NOBODY, Needs.HARMLESS), attack.name
