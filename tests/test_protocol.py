"""Requests are validated as a whole, refused by name, and frames hold what is documented and nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import EdgedError, ErrorCode
from edged.protocol import (
    MAX_LOGIT_BIASES,
    MAX_MESSAGES,
    MAX_STOP_CHARACTERS,
    MAX_STOPS,
    Accepted,
    Chunk,
    Done,
    Failed,
    Frame,
    Message,
    Progress,
    Request,
    Terminal,
    Timings,
    TokenLogprob,
    Usage,
    frame_fields,
    parse_json,
    terminal_of,
    valid_name,
    valid_request_id,
)

HUGE = 10**400
HALF = "\ud83d"  # of an emoji
NUMBERS = [
    "temperature",
    "top_p",
    "min_p",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "ttl_s",
]
WHOLE_NUMBERS = ["max_tokens", "top_k", "seed", "top_logprobs"]
SWITCHES = ["raw", "logprobs", "stream"]
TEXTS = ["id", "prompt", "system", "session", "priority"]


def refusal(fields: dict[str, Any]) -> EdgedError:
    with pytest.raises(EdgedError) as caught:
        Request.parse(fields)
    assert caught.value.code is ErrorCode.INVALID
    assert caught.value.message.encode()  # no half of a surrogate pair goes back
    return caught.value


def assert_refused(name: str, value: Any, *, param: str | None = None) -> None:
    """Assert that the field's value is refused, and that the refusal names the place."""
    fields = {"prompt": "x"} if name not in ("prompt", "messages") else {}
    error = refusal({**fields, name: value})
    assert error.param == (param or name)
    assert name in error.message


def user(content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


# --- JSON ---


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b'{"prompt": "\xc3"}',
        b'"\xed\xa0\x80"',  # half of a surrogate pair in UTF-8's shape
        b"",
        b"{",
        b"\x00",
        b'{"prompt": "x"} {}',
        b"{'prompt': 'x'}",
        b'{"prompt": "line\nbreak"}',
        "\ufeff{}".encode(),
        "{}".encode("utf-16"),
        b'{"temperature": NaN}',
        b"[Infinity]",
        b"[-Infinity]",
        b'{"temperature": 1e999}',
        b"-1e999",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b"9" * 100_000,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_of_the_protocols_is_invalid(body: bytes) -> None:
    with pytest.raises(EdgedError) as caught:
        parse_json(body)
    assert caught.value.code is ErrorCode.INVALID
    assert caught.value.message.startswith("the body is ")
    assert len(caught.value.message) < 300


def test_a_fault_in_json_is_told_with_its_place() -> None:
    for body, place in ((b'{"a": 1,}', "character"), (b'"abc\xff"', "byte 4"), (b"[NaN]", "NaN")):
        with pytest.raises(EdgedError, match=place):
            parse_json(body)
    for body, words in ((b'{"a', "starting at character 1"), (b'"\n"', "control character at character 1")):
        with pytest.raises(EdgedError, match=f"{words}$"):
            parse_json(body)


def test_good_json_is_read_as_it_is() -> None:
    body = '{"prompt": "你好 👩‍👩‍👧‍👦 \\u00e9", "n": [1, -2.5, 1e3, true, null]}'
    assert parse_json(body.encode()) == {"prompt": "你好 👩‍👩‍👧‍👦 é", "n": [1, -2.5, 1000.0, True, None]}
    assert parse_json(b'"\\ud83d\\ude42"') == "🙂"


@given(st.binary() | st.text().map(str.encode) | st.text('[]{}",:019.-eE\\ud8NaInfity').map(str.encode))
def test_any_bytes_are_json_or_invalid(body: bytes) -> None:
    try:
        value = parse_json(body)
    except EdgedError as error:
        assert error.code is ErrorCode.INVALID
    else:
        json.dumps(value, allow_nan=False)


# --- one field ---


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -3, 1e308, HUGE, -HUGE, True, False, "1", [], {}, [1]]
)
def test_what_is_no_number_in_range_is_refused(name: str, value: Any) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
@pytest.mark.parametrize(
    "value", [-1, 2**32, 2**63, HUGE, -HUGE, 1.5, 1e300, math.nan, math.inf, True, False, "1", [], {}]
)
def test_what_is_no_whole_number_in_range_is_refused(name: str, value: Any) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, "true", "", [], {}])
def test_what_is_neither_true_nor_false_is_refused(name: str, value: Any) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, ["x"], HALF, f"a{HALF}b"])
def test_what_is_no_text_is_refused(name: str, value: Any) -> None:
    assert_refused(name, value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0, 0.01, 1, 100.0], [-0.01, 1e-9, 0.0099, 100.1]),
        ("repeat_penalty", [0.01, 1, 100], [0, 0.0099, -1, 100.5]),
        ("top_p", [0, 0.5, 1], [-0.1, 1.01]),
        ("min_p", [0, 0.5, 1], [-0.1, 1.01]),
        ("presence_penalty", [-2, 0, 2], [-2.1, 2.1]),
        ("frequency_penalty", [-2, 0, 2], [-2.1, 2.1]),
        ("ttl_s", [0.5, 1, 86_400], [0, -1]),
        ("max_tokens", [1, 2**31 - 1], [0, 2**31]),
        ("top_k", [0, 1, 2**31 - 1], [-1, 2**31]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_numbers_have_their_ranges(name: str, good: list[float], bad: list[float]) -> None:
    for value in good:
        assert getattr(Request.parse({"prompt": "x", name: value}), name) == value
    for value in bad:
        assert_refused(name, value)


@pytest.mark.parametrize("name", ["id", "session"])
def test_ids_and_names_are_matched_whole(name: str) -> None:
    for good in ("a", "0", "A.b_c-9", "x" * 64):
        assert getattr(Request.parse({"prompt": "x", name: good}), name) == good
    for bad in ("", "a\n", "\na", "a b", "a/b", "a\x00", "é", "٣", "x" * 65, "a+", "#", "$a"):
        assert_refused(name, bad)


def test_a_colon_may_stand_in_an_id_but_in_no_name() -> None:
    assert valid_request_id("a:b")
    assert not valid_name("a:b")
    assert Request.parse({"prompt": "x", "id": "a:b"}).id == "a:b"
    assert_refused("session", "a:b")


def test_stop_strings_are_bounded_and_not_empty() -> None:
    good = ["\n", "x" * MAX_STOP_CHARACTERS, *["x"] * (MAX_STOPS - 2)]
    assert Request.parse({"prompt": "x", "stop": good}).stop == tuple(good)
    assert Request.parse({"prompt": "x", "stop": []}).stop == ()
    for bad in ("x", 1, True, {"a": "b"}, ["x"] * (MAX_STOPS + 1)):
        assert_refused("stop", bad)
    items: list[Any] = ["", HALF, 1, True, None, [], "x" * (MAX_STOP_CHARACTERS + 1)]
    for item in items:
        assert_refused("stop", ["ok", item], param="stop.1")


def test_logit_bias_maps_tokens_to_finite_numbers() -> None:
    assert Request.parse({"prompt": "x", "logit_bias": {0: -100, 7: 1.5}}).logit_bias == {0: -100, 7: 1.5}
    for value in ([], [[1, 2]], "x", 1, True, {"a": 1}, dict.fromkeys(range(MAX_LOGIT_BIASES + 1), 1)):
        assert_refused("logit_bias", value)
    for token in (-1, 2**31, HUGE):
        assert "logit_bias" in refusal({"prompt": "x", "logit_bias": {token: 1}}).message
    biases: list[Any] = [101, -101, math.nan, math.inf, HUGE, True, "1", None, []]
    for bias in biases:
        assert_refused("logit_bias", {3: bias}, param="logit_bias.3")


@pytest.mark.parametrize("value", ["urgent", "HIGH", ""])
def test_priority_is_one_of_three(value: str) -> None:
    assert_refused("priority", value)
    for good in ("low", "normal", "high"):
        assert Request.parse({"prompt": "x", "priority": good}).priority == good


# --- messages ---


@pytest.mark.parametrize("value", [[], "x", {}, {"role": "user"}, 1, True, [user()] * (MAX_MESSAGES + 1)])
def test_messages_are_a_bounded_list_that_is_not_empty(value: Any) -> None:
    assert_refused("messages", value)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (None, ""),
        ("x", ""),
        ([], ""),
        ({}, ".role"),
        ({"role": "user"}, ".content"),
        ({"content": "x"}, ".role"),
        ({"role": "tool", "content": "x"}, ".role"),
        ({"role": "User", "content": "x"}, ".role"),
        ({"role": "user\n", "content": "x"}, ".role"),
        ({"role": HALF, "content": "x"}, ".role"),
        ({"role": None, "content": "x"}, ".role"),
        ({"role": 1, "content": "x"}, ".role"),
        (user(None), ".content"),
        (user(1), ".content"),
        (user(["x"]), ".content"),
        (user(HALF), ".content"),
        (user("x", name=HALF), ".name"),
        (user("x", name=1), ".name"),
    ],
)
def test_a_bad_message_is_refused_with_its_place(message: Any, place: str) -> None:
    assert_refused("messages", [user(), message], param=f"messages.1{place}")


def test_unknown_fields_are_refused_by_name() -> None:
    for fields in ({"prompt": "x", "tempreture": 1}, {"messages": [user(tempreture=1)]}):
        error = refusal(fields)
        assert (error.param, error.message) == ("tempreture", 'unknown field "tempreture"')
    error = refusal({"prompt": "x", "y" * 5000: 1})
    assert len(error.message) < 200


@pytest.mark.parametrize("name", ["task", "response_format", "reply_to"])
def test_what_a_later_version_serves_is_refused_by_name(name: str) -> None:
    assert_refused(name, "x")
    Request.parse({"prompt": "x", name: None})


def test_null_is_the_default() -> None:
    fields = dict.fromkeys(set(Request.model_fields) - {"prompt"})
    assert Request.parse({"prompt": "x", **fields}) == Request.parse({"prompt": "x"})


def test_defaults_are_those_of_llama_cpp() -> None:
    request = Request.parse({"prompt": "x"})
    assert (request.temperature, request.top_k, request.top_p, request.min_p) == (0.8, 40, 0.95, 0.05)
    assert (request.repeat_penalty, request.presence_penalty, request.frequency_penalty) == (1, 0, 0)
    assert (request.max_tokens, request.seed, request.stop, request.stream) == (None, None, (), True)


# --- fields that must agree ---


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, ["prompt", "messages"]),
        ({"prompt": None, "messages": None}, ["prompt", "messages"]),
        ({"prompt": "x", "messages": [user()]}, ["prompt", "messages"]),
        ({"system": "s", "messages": [{"role": "system", "content": "t"}, user()]}, ["system"]),
        ({"system": "", "messages": [user(), {"role": "system", "content": ""}]}, ["system"]),
        ({"session": "s", "messages": [user(), {"role": "assistant", "content": "y"}, user()]}, ["session"]),
        ({"session": "s", "messages": [{"role": "assistant", "content": "y"}]}, ["session"]),
        ({"session": "s", "messages": [{"role": "system", "content": "y"}]}, ["session"]),
        ({"prompt": "x", "top_logprobs": 3}, ["top_logprobs", "logprobs"]),
        ({"prompt": "x", "raw": True, "system": "s"}, ["raw", "system"]),
        ({"prompt": "x", "raw": True, "session": "s"}, ["raw", "session"]),
        ({"messages": [user()], "raw": True}, ["raw", "messages"]),
    ],
)
def test_fields_that_contradict_each_other_are_refused_by_name(
    fields: dict[str, Any], named: list[str]
) -> None:
    message = refusal(fields).message
    assert all(name in message for name in named)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"messages": [user("")]},
        {"session": "s", "prompt": "x", "system": "t"},
        {"session": "s", "messages": [user()]},
        {"session": "s", "messages": [user()], "system": "t"},
        {"session": "s", "messages": [{"role": "system", "content": "t"}, user()]},
        {"messages": [user(), {"role": "assistant", "content": "y"}, user()]},
        {"prompt": "x", "raw": True},
        {"prompt": "x", "logprobs": True, "top_logprobs": 20},
        {"prompt": "x", "logprobs": True},
    ],
)
def test_fields_that_agree_are_taken(fields: dict[str, Any]) -> None:
    Request.parse(fields)


JSON_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # halves of surrogate pairs, too
FIELD_NAMES = st.sampled_from(sorted({*Request.model_fields, *Message.model_fields, "task", "x"}))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([HUGE, -HUGE, 2**31, 2**32, 0, 1])
    | st.floats()
    | JSON_TEXT
    | st.sampled_from(["user", "system", "assistant", "low", "x"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELD_NAMES | JSON_TEXT, inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": SCALARS, "content": SCALARS}), max_size=3)


@given(st.dictionaries(FIELD_NAMES | JSON_TEXT, JSON | MESSAGES, max_size=8))
def test_any_fields_are_a_request_or_invalid(fields: dict[str, Any]) -> None:
    _check(fields)


@given(FIELD_NAMES, JSON)
def test_any_value_of_a_field_is_taken_or_invalid(name: str, value: Any) -> None:
    _check({"prompt": "x", name: value})


def _check(fields: dict[str, Any]) -> None:
    try:
        request = Request.parse(fields)
    except EdgedError as error:
        assert error.code is ErrorCode.INVALID
        assert error.message
        json.dumps([error.message, error.param]).encode()
    else:
        assert request.turns()
        assert request.text_bytes() >= 0
        assert len(request.body_hash(b"salt")) == 16


@pytest.mark.parametrize("depth", [10, 400, 5000])
def test_deep_values_are_refused_wherever_they_stand(depth: int) -> None:
    value: Any = []
    for _ in range(depth):
        value = [value]
    for name in Request.model_fields:
        refusal({"prompt": "x", name: value} if name != "messages" else {name: value})


# --- what a request says ---


def test_turns_are_the_conversation_with_the_system_text_first() -> None:
    assert Request.parse({"prompt": "x"}).turns() == (Message(role="user", content="x"),)
    turns = Request.parse({"messages": [user("x", name="ann")], "system": "s"}).turns()
    assert turns == (
        Message(role="system", content="s"),
        Message(role="user", content="x", name="ann"),
    )


def test_size_is_counted_in_bytes_of_all_texts() -> None:
    assert Request.parse({"prompt": "é🙂", "system": "你"}).text_bytes() == 2 + 4 + 3
    assert Request.parse({"messages": [user("é", name="🙂"), user("x")]}).text_bytes() == 2 + 4 + 1


OTHER: dict[str, Any] = {
    "prompt": "y",
    "raw": True,
    "system": "s",
    "session": "s",
    "max_tokens": 5,
    "temperature": 0.5,
    "top_k": 5,
    "top_p": 0.5,
    "min_p": 0.5,
    "seed": 0,
    "stop": ["x"],
    "repeat_penalty": 1.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {1: 1},
    "logprobs": True,
    "priority": "low",
}


def test_the_bodys_hash_depends_on_all_but_id_stream_and_ttl() -> None:
    assert set(OTHER) | {"id", "stream", "ttl_s", "messages", "top_logprobs"} == set(Request.model_fields)
    salt = b"salt"
    plain = Request.parse({"prompt": "x"}).body_hash(salt)
    assert Request.parse({"prompt": "x", "id": "a", "stream": False, "ttl_s": 5}).body_hash(salt) == plain
    hashes = {Request.parse({"prompt": "x", name: value}).body_hash(salt) for name, value in OTHER.items()}
    hashes.add(Request.parse({"prompt": "x", "logprobs": True, "top_logprobs": 1}).body_hash(salt))
    hashes.add(Request.parse({"messages": [user("x")]}).body_hash(salt))
    hashes.add(Request.parse({"messages": [user("x", name="ann")]}).body_hash(salt))
    assert len(hashes | {plain}) == len(OTHER) + 4


def test_the_bodys_hash_cannot_be_compared_across_salts() -> None:
    request = Request.parse({"prompt": "x"})
    assert request.body_hash(b"salt") == Request.parse({"prompt": "x"}).body_hash(b"salt")
    assert request.body_hash(b"salt") != request.body_hash(b"pepper")


# --- frames ---

HEAD = {"v": 1, "id": "a", "attempt": 2, "seq": 3}
LOGPROB = TokenLogprob("é", b"\xc3\xa9", -0.5, (("é", b"\xc3\xa9", -0.5), ("\ufffd", b"\xc3", -2.0)))
LOGPROB_FIELDS = {
    "text": "é",
    "bytes": [195, 169],
    "logprob": -0.5,
    "top": [
        {"text": "é", "bytes": [195, 169], "logprob": -0.5},
        {"text": "\ufffd", "bytes": [195], "logprob": -2.0},
    ],
}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "cached_tokens": 0}
TIMINGS = {
    "queued_ms": 1.5,
    "first_token_ms": None,
    "prompt_tokens_per_second": None,
    "tokens_per_second": None,
}
DONE = {"type": "done", "finish_reason": "stop", "text": "é", "usage": USAGE, "timings": TIMINGS}


@pytest.mark.parametrize(
    ("frame", "fields"),
    [
        (Accepted("a", 2, 3, 0), {"type": "accepted", "queue_position": 0}),
        (Chunk("a", 2, 3, "é🙂"), {"type": "chunk", "text": "é🙂"}),
        (Chunk("a", 2, 3, "é", (LOGPROB,)), {"type": "chunk", "text": "é", "logprobs": [LOGPROB_FIELDS]}),
        (
            Progress("a", 2, 3, 100, 3000),
            {"type": "progress", "prompt_tokens_done": 100, "prompt_tokens": 3000},
        ),
        (Done("a", 2, 3, "stop", "é", Usage(7, 5), Timings(1.5)), DONE),
        (
            Done("a", 2, 3, "stop", "é", Usage(7, 5), Timings(1.5), 2, (LOGPROB,)),
            {**DONE, "session_turns_dropped": 2, "logprobs": [LOGPROB_FIELDS]},
        ),
        (
            Failed("a", 2, 3, ErrorCode.INTERNAL, "why"),
            {"type": "error", "code": "internal", "message": "why"},
        ),
        (
            Failed("a", 2, 3, ErrorCode.BUSY, "why", 2.5, param="prompt"),
            {"type": "error", "code": "busy", "message": "why", "retry_after_s": 2.5, "param": "prompt"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_frames_are_json_with_the_documented_fields_alone(frame: Frame, fields: dict[str, Any]) -> None:
    found = frame_fields(frame)
    assert json.loads(json.dumps(found, allow_nan=False)) == {**HEAD, **fields}
    assert frame_fields(frame) == found  # the frame is left as it was


def test_a_failure_is_the_error_that_it_came_from() -> None:
    error = Failed("a", 1, 0, ErrorCode.BUSY, "why", 2.5, param="prompt").error()
    assert (error.code, error.message, error.retry_after_s, error.param) == ("busy", "why", 2.5, "prompt")


@pytest.mark.parametrize(
    "terminal",
    [
        Failed("a", 2, 0, code=ErrorCode.BUSY, message="nö", retry_after_s=1.5, param="x"),
        Done(
            "a",
            1,
            4,
            finish_reason="stop",
            text="ü",
            usage=Usage(3, 4),
            timings=Timings(1.25, 0.1, None, 30.0),
            session_turns_dropped=2,
            logprobs=(TokenLogprob("ü", "ü".encode(), -0.5, (("a", b"a", -1.5),)),),
        ),
    ],
)
def test_a_terminal_frame_survives_being_written_down(terminal: Terminal) -> None:
    written = json.dumps({**frame_fields(terminal), "device_id": "d"})
    assert terminal_of(json.loads(written)) == terminal
