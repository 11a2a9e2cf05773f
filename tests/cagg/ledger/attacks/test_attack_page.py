"""docs/attacks.md is what the corpus says, and every line of it is shown by a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from cagg.testing.tampering import ATTACKS, ELSEWHERE, Group, attack_page

HERE = Path(__file__).parent
PAGE = Path(__file__).parents[4] / "docs" / "attacks.md"


def test_the_page_is_what_the_corpus_says() -> None:
    wanted = "run: python -m cagg.testing.tampering > docs/attacks.md"
    assert PAGE.read_text(encoding="utf-8") == attack_page(), wanted


def test_every_group_has_attacks_and_every_attack_a_line_of_its_own() -> None:
    page = attack_page().splitlines()
    assert {attack.group for attack in ATTACKS} == set(Group)
    for attack in ATTACKS:
        assert "|" not in attack.does + attack.name + attack.remark
        assert sum(line.startswith((f"| {attack.name} |", f"| {attack.name} (")) for line in page) == 1, attack.name


@pytest.mark.parametrize("shown_by", [item[-1] for item in ELSEWHERE])
def test_what_is_no_change_of_rows_is_shown_by_a_test_as_well(shown_by: str) -> None:
    file, _, name = shown_by.partition("::")
    assert f"def {name}(" in (HERE / file).read_text(encoding="utf-8")
