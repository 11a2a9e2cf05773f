"""Attribution closes exactly, in every slice, and rounding neither loses nor gains over many slices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cagg.energy.attribution import Splitter, apportion, idle_energy
from cagg.energy.uncertainty import ComponentFacts, bounds, grade_of, reading_grade
from cagg.errors import InvalidInput
from cagg.provenance import Grade

WEIGHTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=8)


@given(total=st.integers(0, 10**12), weights=WEIGHTS)
def test_parts_sum_to_the_whole_and_are_within_one_of_exact(total: int, weights: list[int]) -> None:
    parts, left = apportion(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0
    assert sum(left) == 0
    if sum(weights):
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - total * weight / sum(weights)) <= 1 + total * 1e-12


@given(rounds=st.lists(st.integers(0, 50), min_size=1, max_size=200), weights=WEIGHTS.filter(sum))
def test_many_small_rounds_add_up_to_the_exact_share(rounds: list[int], weights: list[int]) -> None:
    left = [0] * len(weights)
    got = [0] * len(weights)
    for total in rounds:
        parts, left = apportion(total, weights, left)
        assert sum(parts) == total
        got = [before + part for before, part in zip(got, parts, strict=True)]
    for part, weight in zip(got, weights, strict=True):
        # Each slice's exact share is kept to a millionth, the rest goes to the last claimant.
        assert abs(part - sum(rounds) * weight / sum(weights)) <= 1 + len(weights)


def test_the_smaller_share_is_not_starved_by_slices_of_one_millijoule() -> None:
    left = [0, 0]
    got = [0, 0]
    for _ in range(1000):
        parts, left = apportion(1, [30, 70], left)
        got = [before + part for before, part in zip(got, parts, strict=True)]
    assert got == [300, 700]


def test_without_any_use_everything_is_the_last_claimants() -> None:
    assert apportion(7, [0, 0, 0])[0] == [0, 0, 7]


@pytest.mark.parametrize("bad", [(-1, [1]), (1, []), (1, [-1, 2])])
def test_impossible_divisions_are_refused(bad: tuple[int, list[int]]) -> None:
    with pytest.raises(InvalidInput, match="cannot divide"):
        apportion(*bad)


@given(
    slices=st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.integers(0, 10**6),
            st.dictionaries(st.integers(1, 5), st.tuples(st.integers(0, 10**9), st.integers(0, 4000)), max_size=5),
            st.integers(0, 10**9),
            st.integers(0, 4000),
        ),
        max_size=30,
    )
)
def test_every_slice_closes_while_runs_come_and_go(
    slices: list[tuple[int, int, dict[int, tuple[int, int]], int, int]],
) -> None:
    splitter = Splitter()
    known: set[int] = set()
    for dynamic, idle, runs, rest, rest_idle in slices:
        for gone in known - set(runs):
            splitter.forget(gone)
        known = set(runs)
        split = splitter.split(
            dynamic_millijoules=dynamic,
            idle_millijoules=idle,
            usage={key: used for key, (used, _) in runs.items()},
            rest_usage=rest,
            idle_weights={key: claim for key, (_, claim) in runs.items()},
            rest_idle_weight=rest_idle,
        )
        assert sum(split.dynamic.values()) + split.other == dynamic
        assert sum(split.idle.values()) + split.unowned_idle == idle
        assert min([*split.dynamic.values(), *split.idle.values(), split.other, split.unowned_idle]) >= 0


def test_idle_energy_never_passes_the_slice() -> None:
    assert idle_energy(500, 1_000, 250_000_000) == 250
    assert idle_energy(100, 1_000, 250_000_000) == 100
    assert idle_energy(100, None, 250_000_000) == 0


FACTS = st.builds(
    ComponentFacts,
    dynamic_millijoules=st.integers(0, 10**12),
    idle_millijoules=st.integers(0, 10**12),
    host_dynamic_millijoules=st.integers(0, 10**13),
    best_grade=st.sampled_from(list(Grade)),
    duration_seconds=st.floats(0, 10**6),
    resolution_seconds=st.floats(1e-6, 10),
    sensor_uncertainty=st.floats(0, 3),
    power_milliwatts=st.integers(0, 10**7),
    gap_seconds=st.floats(0, 10**4),
    gap_millijoules=st.integers(0, 10**10),
    ambiguous_millijoules=st.integers(0, 10**6),
)


@given(facts=FACTS)
def test_the_value_lies_within_its_bounds_and_no_grade_improves(facts: ComponentFacts) -> None:
    grade = grade_of(facts)
    low, high = bounds(facts, grade)
    assert 0 <= low <= facts.energy_millijoules <= high
    assert grade >= facts.best_grade


def facts(**changes: object) -> ComponentFacts:
    usual: dict[str, object] = {
        "dynamic_millijoules": 900,
        "idle_millijoules": 100,
        "host_dynamic_millijoules": 900,
        "best_grade": Grade.A,
        "duration_seconds": 100.0,
        "resolution_seconds": 0.1,
        "sensor_uncertainty": 0.05,
        "power_milliwatts": 10,
    }
    return ComponentFacts(**{**usual, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "grade"),
    [
        ({}, Grade.A),
        ({"host_dynamic_millijoules": 2000}, Grade.B),
        ({"duration_seconds": 0.5}, Grade.B),
        ({"duration_seconds": 0.2}, Grade.D),
        ({"duration_seconds": 0.0}, Grade.D),
        ({"gap_seconds": 1.0}, Grade.B),
        ({"gap_seconds": 10.0}, Grade.D),
        ({"ambiguous_millijoules": 100}, Grade.C),
        ({"best_grade": Grade.C}, Grade.C),
    ],
)
def test_grades(changes: dict[str, object], grade: Grade) -> None:
    assert grade_of(facts(**changes)) is grade


def test_the_terms_combine_in_quadrature() -> None:
    # sensor 5 % of 10000 = 500, boundary 2 x 0.1 / 100 of 10000 = 20, share 0.5: 0.25 x 8000 = 2000, idle 20 % of 2000
    low, high = bounds(facts(dynamic_millijoules=8000, idle_millijoules=2000, host_dynamic_millijoules=16000), Grade.B)
    half = (500**2 + 20**2 + 2000**2 + 400**2) ** 0.5
    assert low == pytest.approx(10000 - half, abs=1)
    assert high == pytest.approx(10000 + half, abs=1)


def test_an_estimate_spans_a_factor_of_three() -> None:
    low, high = bounds(facts(best_grade=Grade.D, idle_millijoules=0), Grade.D)
    assert low <= 300
    assert high >= 2700


def test_the_grade_of_a_reading_ignores_components_below_a_tenth() -> None:
    assert reading_grade([(Grade.A, 95), (Grade.D, 5)]) is Grade.A
    assert reading_grade([(Grade.A, 90), (Grade.C, 10)]) is Grade.C
    assert reading_grade([(Grade.A, 0), (Grade.C, 0)]) is Grade.C
    assert reading_grade([]) is None
