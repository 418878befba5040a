"""What is kept of states, and what goes first."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edged.engine.child.prefixes import BOUNDARY_BONUS, PrefixStore
from edged.engine.child.reuse import common_length
from tests.engine.fake_runner import TOKEN_BYTES, FakeState

TOKENS = st.lists(st.integers(0, 2), max_size=12)


def put(store: PrefixStore, tokens: list[int], *, is_boundary: bool = False) -> bool:
    """Keep a state of these tokens, if it is kept."""
    state = FakeState([(token, 0) for token in tokens])
    if not store.make_room(tokens, state.size, is_boundary=is_boundary):
        return False
    assert store.bytes + state.size <= store.max_bytes, "there is room before the state is"
    store.put(tokens, state, is_boundary=is_boundary)
    return True


def kept(store: PrefixStore) -> list[list[int]]:
    return [prefix.tokens for prefix in store]


@given(TOKENS, TOKENS, st.integers(0, 14))
def test_common_length_is_that_of_the_common_beginning(one: list[int], other: list[int], most: int) -> None:
    length = common_length(one, other, most)
    assert one[:length] == other[:length]
    assert length == min(most, len(one), len(other)) or one[length] != other[length]


@given(st.lists(st.tuples(TOKENS, st.booleans())), st.integers(0, 300))
def test_store_keeps_to_its_bytes(states: list[tuple[list[int], bool]], most: int) -> None:
    store = PrefixStore(most, "anywhere")
    for tokens, is_boundary in states:
        if put(store, tokens, is_boundary=is_boundary):
            assert tokens in kept(store), "what has room is kept"
        store.check()


def test_least_recently_used_goes_first() -> None:
    store = PrefixStore(3 * TOKEN_BYTES, "anywhere")
    for token in (1, 2, 3):
        put(store, [token])
    store.use(next(iter(store)))
    put(store, [4])
    assert kept(store) == [[1], [3], [4]]


def test_end_of_a_system_text_outlives_what_was_used_since_but_not_for_ever() -> None:
    store = PrefixStore(2 * TOKEN_BYTES, "anywhere")
    put(store, [1], is_boundary=True)
    for token in range(BOUNDARY_BONUS):
        put(store, [2 + token])
    assert [1] in kept(store)
    for token in range(2):
        put(store, [1000 + token])
    assert kept(store) == [[1000], [1001]]


def test_longer_state_takes_the_place_of_what_it_can_be_cut_to() -> None:
    for cutting, expected in (("anywhere", [[1], [1, 2, 3]]), ("whole", [[1], [1, 2], [1, 2, 3]])):
        store = PrefixStore(1000, "whole" if cutting == "whole" else "anywhere")
        put(store, [1], is_boundary=True)
        put(store, [1, 2])
        put(store, [1, 2, 3])
        assert kept(store) == expected


def test_what_is_covered_is_what_can_be_cut_out() -> None:
    anywhere, whole = PrefixStore(1000, "anywhere"), PrefixStore(1000, "whole")
    for store in (anywhere, whole):
        put(store, [1, 2, 3])
    assert [anywhere.covers(tokens) for tokens in ([1, 2], [1, 2, 3], [1, 5])] == [2, 3, 1]
    assert [whole.covers(tokens) for tokens in ([1, 2], [1, 2, 3], [1, 5])] == [0, 3, 0]


def test_limit_can_be_lowered_and_raised_but_not_beyond_the_first() -> None:
    store = PrefixStore(4 * TOKEN_BYTES, "anywhere")
    for token in range(4):
        put(store, [token])
    sizes = []
    for most in (2, 100):
        store.limit(most * TOKEN_BYTES)
        sizes.append((len(store), store.max_bytes))
    assert sizes == [(2, 2 * TOKEN_BYTES), (2, 4 * TOKEN_BYTES)]
    assert all(one < two for one, two in pairwise(prefix.used for prefix in store))
