"""Who of several runs used the processor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cagg.energy.sharing import Claimant, UsageScope, share_usage


def run(
    key: int,
    *,
    scope: UsageScope = UsageScope.AUTO,
    thread: int | None = None,
    main: bool = False,
    used: int | None = 0,
) -> Claimant:
    return Claimant(key=key, scope=scope, thread=key if thread is None else thread, on_main_thread=main, thread_ns=used)


def test_one_run_alone_has_everything_the_process_used() -> None:
    share = share_usage(1000, [run(1, used=10)])[1]
    assert (share.usage_ns, share.ambiguous_ns) == (1000, 0)


def test_overlapping_threads_have_their_own_time_when_that_explains_the_process() -> None:
    shares = share_usage(1000, [run(1, used=300), run(2, used=600)])
    assert {key: share.usage_ns for key, share in shares.items()} == {1: 300, 2: 600}
    assert all(share.ambiguous_ns == 0 for share in shares.values())


def test_pool_threads_are_spread_pro_rata_and_marked() -> None:
    shares = share_usage(1000, [run(1, used=100), run(2, used=300)])
    assert {key: share.usage_ns for key, share in shares.items()} == {1: 250, 2: 750}
    assert {key: share.ambiguous_ns for key, share in shares.items()} == {1: 150, 2: 450}


def test_the_main_threads_run_takes_what_the_others_did_not() -> None:
    shares = share_usage(1000, [run(1, main=True, used=5), run(2, used=300)])
    assert {key: share.usage_ns for key, share in shares.items()} == {1: 700, 2: 300}


def test_runs_on_one_thread_are_a_group() -> None:
    shares = share_usage(1000, [run(1, thread=7, used=1000), run(2, thread=7, used=1000)])
    assert {key: share.usage_ns for key, share in shares.items()} == {1: 500, 2: 500}
    assert all(share.ambiguous_ns == 500 for share in shares.values())


def test_without_thread_clocks_runs_share_equally() -> None:
    shares = share_usage(1000, [run(1, used=None), run(2, used=None)])
    assert {key: share.usage_ns for key, share in shares.items()} == {1: 500, 2: 500}
    assert all(share.ambiguous_ns == 500 for share in shares.values())


def test_a_parent_that_works_beside_its_child_keeps_its_part() -> None:
    parent = run(1, used=400)
    shares = share_usage(1000, [run(2, used=500)], parent)
    assert shares[2].usage_ns == 500
    same_thread = share_usage(1000, [run(2, thread=1, used=400)], parent)
    assert same_thread[2].usage_ns == 1000


@given(
    pool=st.integers(0, 10**12),
    runs=st.lists(
        st.tuples(
            st.sampled_from(list(UsageScope)),
            st.integers(1, 3),
            st.booleans(),
            st.one_of(st.none(), st.integers(0, 10**12)),
        ),
        min_size=1,
        max_size=6,
    ),
    inside=st.booleans(),
)
def test_runs_never_share_more_than_there_was(
    pool: int, runs: list[tuple[UsageScope, int, bool, int | None]], inside: bool
) -> None:
    level = [
        run(key, scope=scope, thread=thread, main=main, used=used)
        for key, (scope, thread, main, used) in enumerate(runs, start=1)
    ]
    shares = share_usage(pool, level, run(99, used=5) if inside else None)
    assert set(shares) == {claimant.key for claimant in level}
    assert sum(share.usage_ns for share in shares.values()) <= pool
    assert all(0 <= share.ambiguous_ns <= share.usage_ns for share in shares.values())
