"""Text that may be shown: whole characters, and stop strings never in part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.engine.child.assembler import Assembler
from edged.engine.messages import Logprob


def shown(stops: list[str], pieces: list[bytes]) -> tuple[list[str], bool]:
    """Feed the pieces and return what was shown at each, with the rest at the end, and whether it stopped."""
    assembler = Assembler(stops)
    texts = []
    for piece in pieces:
        step = assembler.feed(0, piece)
        texts.append(step.text)
        if step.stopped:
            return texts, True
    return [*texts, assembler.flush().text], False


def test_character_that_spans_tokens_comes_whole() -> None:
    raw = "a🙂b".encode()
    assert shown([], [raw[:2], raw[2:4], raw[4:]]) == (["a", "", "🙂b", ""], False)


def test_stop_string_that_spans_tokens_is_never_shown() -> None:
    assert shown(["\nUser:"], [b"Hi", b"\nUs", b"er", b": x"]) == (["Hi", "", "", ""], True)


def test_what_only_looked_like_a_stop_is_shown_when_that_is_known() -> None:
    assert shown(["STOP"], [b"ST", b"ART", b" ST"]) == (["", "START", " ", "ST"], False)


def test_first_of_two_stops_ends_the_text() -> None:
    assert shown(["later", "b"], [b"a b later"]) == (["a "], True)


def test_half_a_character_at_the_end_is_dropped_and_no_utf8_is_marked() -> None:
    assert shown([], [b"a\xff", "é".encode()[:1]]) == (["a�", "", ""], False)


def test_logprobs_come_with_the_text_that_they_belong_to() -> None:
    first, second, third = (Logprob(text, -1.0, []) for text in ("x", "S", "T"))
    assembler = Assembler(["STOP"])
    assert assembler.feed(0, b"x", first).logprobs == [first]
    assert assembler.feed(0, b"S", second).logprobs == []
    assert assembler.feed(0, b"T", third).logprobs == []
    assert assembler.flush().logprobs == [second, third]


def test_logprobs_of_a_stop_string_are_not_told() -> None:
    assembler = Assembler(["STOP"])
    assembler.feed(0, b"ST", Logprob("ST", -1.0, []))
    assert assembler.feed(0, b"OP", Logprob("OP", -1.0, [])).logprobs == []


def test_tokens_come_with_their_text_and_all_of_them_at_the_end() -> None:
    assembler = Assembler(["STOP"])
    assert assembler.feed(1, b"a").tokens == [1]
    assert assembler.feed(2, b"ST").tokens == []
    assert assembler.feed(3, b"ART").tokens == [2, 3]
    assert assembler.feed(4, "é".encode()[:1]).tokens == []
    assert assembler.feed(5, "é".encode()[1:]).tokens == [4, 5]
    assert assembler.feed(6, b"ST").tokens == []
    assert assembler.feed(7, b"OP").tokens == [6, 7]


def test_answer_goes_on_the_same_when_its_tokens_are_fed_again() -> None:
    pieces = [b"a", b" ST", b"O", b"ne ", "é".encode()[:1], "é".encode()[1:], b"STOP", b"never"]
    for death in range(len(pieces)):
        first, again = Assembler(["STOP"]), Assembler(["STOP"])
        text, produced = "", []
        for token in range(death):
            shown = first.feed(token, pieces[token])
            text += shown.text
            produced += shown.tokens
        for token in produced:
            again.feed(token, pieces[token])
        for token in range(len(produced), 7):
            text += again.feed(token, pieces[token]).text
        assert text == "a STOne é", f"death after {death} tokens"


@given(st.text(max_size=40), st.lists(st.text(min_size=1, max_size=4), max_size=3), st.data())
def test_any_cut_into_pieces_gives_the_text_before_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)))))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    texts, stopped = shown(stops, pieces)
    found = "".join(texts)
    assert text.startswith(found)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in found for stop in stops)
    if not stopped:
        assert found == text
    else:
        assert any(text.startswith(stop, len(found)) for stop in stops)
