from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Exchange, Run, SmallDaemon, Terminal


def test_a_conversation_is_one_session(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal("chat", "--system", "Be brief.", "--max-tokens", "9")
    person.expect("smollm2-135m-instruct-q4_1 on pi-a1b2c3")
    person.expect("> ")
    person.type("one\n")
    person.expect("Hello.\r\n")
    first = daemon.asked()
    person.expect("> ")
    person.type("two\n")
    person.expect("Hello.\r\n")
    second = daemon.asked()

    assert first["messages"] == [{"role": "user", "content": "one"}]
    assert second["messages"] == [{"role": "user", "content": "two"}]
    assert first["session"] == second["session"]
    assert (second["system"], second["max_tokens"]) == ("Be brief.", 9)
    person.expect("> ")
    person.type("\x04")
    assert person.end() == 0


def test_commands(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal("chat")

    def say(text: str, until: str) -> str:
        person.expect("> ")
        person.type(text + "\n")
        return person.expect(until)

    say("one", "Hello.\r\n")
    before = daemon.asked()
    say("/reset", "(a new conversation)")
    say("/system Rhyme.", "(from the next answer on)")
    say("two", "Hello.\r\n")
    after = daemon.asked()
    assert before["session"] != after["session"]
    assert (before.get("system"), after["system"]) == (None, "Rhyme.")

    for command in ("/reset", "/system TEXT", "/quit", "/help"):
        assert command in say("/help", "put a space before it."), command
    say("/rest", "unknown command /rest: /help lists them")
    assert after == daemon.asked()
    say(" /etc/fstab, what is it?", "Hello.\r\n")
    assert daemon.asked()["messages"][0]["content"] == "/etc/fstab, what is it?"
    person.expect("> ")
    person.type("/quit\n")
    assert person.end() == 0


def test_interrupt_ends_only_the_answer(terminal: Terminal, daemon: SmallDaemon) -> None:
    def route(exchange: Exchange) -> None:
        exchange.begin()
        exchange.delta("so far")
        exchange.wait_for_hangup()

    daemon.on_ask(route)
    person = terminal("chat")
    person.expect("> ")
    person.type("one\n")
    person.expect("so far")
    person.type("\x03")
    person.expect("(cancelled;")
    assert daemon.hung_up.wait(20)

    daemon.answer("Again.")
    person.expect("> ")
    person.type("two\n")
    person.expect("Again.")


def test_interrupt_at_the_prompt_clears_the_line(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal("chat")
    person.expect("> ")
    person.type("never mind")
    person.expect("never mind")
    while not person.sees("> "):  # Python's readline misses one that comes while it handles a key
        person.type("\x03")
    person.type("two\n")
    person.expect("Hello.")

    assert daemon.asked()["messages"][0]["content"] == "two"


def test_lines_pasted_together_are_one_question(terminal: Terminal, daemon: SmallDaemon) -> None:
    person = terminal("chat")
    person.expect("> ")
    person.type("\x1b[200~first\nsecond\x1b[201~")
    person.expect("second")
    person.type("\n")
    person.expect("Hello.")

    assert daemon.asked()["messages"][0]["content"] == "first\nsecond"


def test_lines_can_be_edited_and_recalled(terminal: Terminal, daemon: SmallDaemon, tmp_path: Path) -> None:
    person = terminal("chat")
    person.expect("> ")
    person.type("wrld\x1b[D\x1b[D\x1b[Do\n")
    person.expect("Hello.")
    assert daemon.asked()["messages"][0]["content"] == "world"
    person.expect("> ")
    person.type("\x04")
    assert person.end() == 0

    history = tmp_path / "state/edged/chat_history"
    assert "world" in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700

    person = terminal("chat")
    person.expect("> ")
    person.type("\x1b[A!\n")
    person.expect("Hello.")
    assert daemon.asked()["messages"][0]["content"] == "world!"


def test_refusals_and_lost_turns_are_told_and_the_chat_goes_on(
    terminal: Terminal, daemon: SmallDaemon
) -> None:
    daemon.on_ask(lambda exchange: exchange.refuse(429, "busy", "the queue is full", retry_after_s=4))
    person = terminal("chat")
    person.expect("> ")
    person.type("one\n")
    person.expect("edgectl: busy: the queue is full (retry in 4 s)")
    daemon.answer("Hello.", session_turns_dropped=2)
    person.expect("> ")
    person.type("two\n")
    person.expect("Hello.")
    person.expect("2 old turns no longer fit")


def test_piped_questions(edgectl: Run, daemon: SmallDaemon) -> None:
    result = edgectl("chat", stdin=b"one\n\n\xff\n")

    assert (result.returncode, result.stdout, result.stderr) == (0, b"Hello.\nHello.\n", b"")
    assert daemon.asked()["messages"][0]["content"] == "\ufffd"


def test_no_daemon(edgectl: Run, tmp_path: Path) -> None:
    assert edgectl("chat", "--socket", str(tmp_path / "none")).returncode == 3
