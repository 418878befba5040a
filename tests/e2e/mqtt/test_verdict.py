"""The judge of tools/chaos: it must see what it is there to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tools.chaos.ledger import Ledger
from tools.chaos.prompts import Prompt
from tools.chaos.verdict import judge

PROMPTS = [Prompt("anna", f"p{number}", '{"prompt": "x", "max_tokens": 4}', None) for number in range(2)]
Change = Callable[[Ledger], None]


def frame(id: str, seq: int, type: str, *, attempt: int = 1, **fields: Any) -> bytes:
    return json.dumps({"id": id, "attempt": attempt, "seq": seq, "type": type, **fields}).encode()


def done(id: str, seq: int, text: str, *, attempt: int = 1) -> bytes:
    usage = {"completion_tokens": 4}
    return frame(id, seq, "done", attempt=attempt, finish_reason="length", text=text, usage=usage)


def hear(ledger: Ledger, *payloads: bytes) -> None:
    for payload in payloads:
        ledger.hear("anna", "t", payload, None)


def good(ledger: Ledger, id: str) -> None:
    hear(
        ledger,
        frame(id, 0, "accepted", attempt=1),
        frame(id, 0, "accepted", attempt=2),
        frame(id, 1, "chunk", text="ab", attempt=2),
        frame(id, 1, "chunk", text="ab", attempt=2),
        frame(id, 2, "chunk", text="cd", attempt=2),
        done(id, 3, "abcd", attempt=2),
        done(id, 3, "abcd", attempt=2),
    )


def run(change: Change = lambda ledger: None, *, whole: int = 2) -> list[str]:
    ledger = Ledger(PROMPTS)
    for prompt in PROMPTS:
        ledger.ask(prompt)
    for prompt in PROMPTS[:whole]:
        good(ledger, prompt.id)
    change(ledger)
    return judge(ledger, [], repeats_allowed=False).faults


def test_repeats_of_equal_frames_and_attempts_that_were_cut_off_are_right() -> None:
    assert run() == []


ACCEPTED = frame("p1", 0, "accepted")
DONE = done("p1", 2, "abcd")
WRONG = {
    "0 distinct terminal frames": [],
    "2 distinct terminal frames": [ACCEPTED, done("p1", 1, "abcd"), DONE],
    "differ": [ACCEPTED, DONE, done("p1", 2, "abce")],
    "have not come": [ACCEPTED, DONE],
    "joined are not": [ACCEPTED, frame("p1", 1, "chunk", text="abc"), DONE],
    "does not begin with": [frame("p1", 0, "chunk", text=""), frame("p1", 1, "chunk", text="abcd"), DONE],
    "were asked for": [ACCEPTED, DONE.replace(b": 4}", b": 3}")],
    "journal_full": [frame("p1", 0, "error", code="journal_full", message="no room")],
    "different answers": [ACCEPTED, frame("p1", 1, "chunk", text="xy"), done("p1", 2, "xy")],
    "beyond the terminal": [ACCEPTED, DONE, frame("p1", 0, "accepted", attempt=2)],
    "no frame of a prompt": [frame("stranger", 0, "accepted")],
}


@pytest.mark.parametrize(("words", "frames"), WRONG.items())
def test_what_is_wrong_is_seen(words: str, frames: list[bytes]) -> None:
    assert any(words in fault for fault in run(lambda ledger: hear(ledger, *frames), whole=1))


def test_a_repeated_ask_is_seen_where_none_may_be_needed() -> None:
    assert run(lambda ledger: ledger.ask(PROMPTS[0])) == [
        "1 prompts were asked again, in a run that is to do without"
    ]


def test_a_prompt_that_is_computed_again_is_seen() -> None:
    ledger = Ledger(PROMPTS[:1])
    ledger.ask(PROMPTS[0])
    good(ledger, "p0")
    taken = {"event": "accepted", "client": "anna", "request_id": "p0"}
    before = {**taken, "timestamp": "2000-01-01T00:00:00.000000Z"}
    after = {**taken, "timestamp": "2100-01-01T00:00:00.000000Z"}
    assert judge(ledger, [before]).faults == []
    [fault] = judge(ledger, [before, after]).faults
    assert "taken in hand again" in fault


def test_chunks_that_a_killed_broker_has_lost_are_counted() -> None:
    ledger = Ledger(PROMPTS[:1])
    ledger.ask(PROMPTS[0])
    hear(ledger, frame("p0", 0, "accepted"), done("p0", 2, "abcd"))
    [account] = ledger.accounts.values()
    verdict = judge(ledger, [], broker_kills=[(account.asked[0], account.heard[-1].at)])
    assert (verdict.faults, verdict.counts["holed"]) == ([], 1)
    late = account.heard[-1].at + 1
    assert not judge(ledger, [], broker_kills=[(late, late + 1)]).holds
