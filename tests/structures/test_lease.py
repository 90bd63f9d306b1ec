"""However it is asked, given back and lost, a lease never hands out more than there is, nor refuses what is free."""

from hypothesis import given
from hypothesis import strategies as st

from minidist.structures.lease import LeasePool


def test_whole_slices_while_there_are_any():
    pool = LeasePool(10, 4)
    assert [pool.grant(1, 1), pool.grant(2, 5), pool.grant(1, 1)] == [4, 6, 0]
    assert pool.free == 0
    pool.give_back(2, 3)
    assert pool.grant(1, 1) == 3
    pool.drop(1)
    assert (pool.free, pool.held) == (7, {2: 3})


def test_a_smaller_total_takes_effect_as_holders_give_back():
    pool = LeasePool(10, 1)
    pool.grant(1, 8)
    assert pool.resize(5) == 3
    assert (pool.free, pool.grant(2, 1)) == (-3, 0)
    pool.give_back(1, 4)
    assert pool.grant(2, 5) == 1
    assert pool.resize(100) == 0


moves = st.tuples(st.sampled_from(["grant", "give back", "drop"]), st.integers(1, 4), st.integers(0, 30))


@given(st.integers(0, 50), st.integers(0, 10), st.lists(moves))
def test_the_sum_never_passes_the_total(total, slice_size, steps):
    pool = LeasePool(total, slice_size)
    held = dict.fromkeys(range(1, 5), 0)
    for what, holder, amount in steps:
        if what == "grant":
            free = total - sum(held.values())
            granted = pool.grant(holder, amount)
            assert granted >= min(max(amount, 1), free)
            held[holder] += granted
        elif what == "give back":
            amount = min(amount, held[holder])
            pool.give_back(holder, amount)
            held[holder] -= amount
        else:
            pool.drop(holder)
            held[holder] = 0
        assert sum(held.values()) <= total
        assert pool.free == total - sum(held.values())
