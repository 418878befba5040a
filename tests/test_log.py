"""The log: one line an event, whatever writes it, and never a secret or a prompt."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from edged import journald, log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging to the other tests as it was."""
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raises
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "log").open("w+") as file:
        yield file


def lines(stream: TextIO) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


def events(stream: TextIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(stream)]


def test_event_is_a_line_of_json_with_time_level_and_logger(stream: TextIO) -> None:
    log.configure("info", stream=stream)
    structlog.get_logger("edged.core").info("accepted\nreally", queue=3, path=Path("/x"), word="né")

    [event] = events(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "accepted\nreally",
        "level": "info",
        "logger": "edged.core",
        "queue": 3,
        "path": "/x",
        "word": "né",
    }


def test_libraries_log_the_same_way(stream: TextIO) -> None:
    log.configure("info", stream=stream)
    logging.getLogger("aiohttp.server").warning("odd %s", "header")

    [event] = events(stream)
    assert (event["event"], event["level"], event["logger"]) == ("odd header", "warning", "aiohttp.server")


def test_warnings_are_logged(stream: TextIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.configure("info", stream=stream)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)

    assert "old ways" in events(stream)[0]["event"]


def test_level_changes_while_it_runs(stream: TextIO) -> None:
    log.configure("warning", stream=stream)
    logger = structlog.get_logger("edged")
    for number, level in enumerate(("warning", "debug", "error")):
        log.set_level(level)  # type: ignore[arg-type]
        logger.debug("debug", number=number)
        logging.getLogger("asyncio").info("library", extra={})
        logger.error("error", number=number)

    assert [event["event"] for event in events(stream)] == ["error", "debug", "library", "error", "error"]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_exception_is_one_line_and_says_where_only_at_debug(stream: TextIO, level: log.Level) -> None:
    log.configure(level, stream=stream)
    try:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            raise ValueError("went wrong\ninput: the user's secret words") from cause
    except ValueError as error:
        structlog.get_logger("edged").exception("step failed")
        structlog.get_logger("edged").warning("step failed", exc_info=error)
        logging.getLogger("asyncio").exception("step failed")

    found = events(stream)
    assert [event["error"] for event in found] == ["ValueError: went wrong"] * 3
    assert "secret words" not in "".join(lines(stream))
    for event in found:
        if level == "debug":
            assert any(__file__ in call for call in event["traceback"])
            assert "KeyError: 'cause'" in event["traceback"]
        else:
            assert "traceback" not in event


def test_exc_info_without_an_exception_is_passed_over(stream: TextIO) -> None:
    log.configure("info", stream=stream)
    structlog.get_logger("edged").info("fine", exc_info=True)

    assert "error" not in events(stream)[0]


@pytest.mark.parametrize(
    "name",
    [
        "prompt",
        "messages",
        "content",
        "token",
        "http_token",
        "password",
        "Authorization",
        "api-key",
        "system_prompt",
    ],
)
def test_secrets_and_prompts_are_removed_by_name(stream: TextIO, name: str) -> None:
    log.configure("debug", stream=stream)
    structlog.get_logger("edged").info("event", **{name: "hidden", "request": {name: "hidden", "id": "r1"}})
    with structlog.contextvars.bound_contextvars(**{name: "hidden"}):
        logging.getLogger("aiohttp").info("event")

    first, _ = events(stream)
    assert first["request"] == {"id": "r1"}
    assert "hidden" not in "".join(lines(stream))


def test_counts_of_tokens_are_no_secrets(stream: TextIO) -> None:
    log.configure("info", stream=stream)
    structlog.get_logger("edged").info("done", prompt_tokens=3, max_tokens=4, tokens_per_second=5)

    assert events(stream)[0].items() >= {"prompt_tokens": 3, "max_tokens": 4, "tokens_per_second": 5}.items()


def test_journal_gets_events_with_their_fields(
    stream: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        log.configure("debug", stream=stream)
        structlog.get_logger("edged").info("accepted", request_id="a-1", prompt="secret words")
        logging.getLogger("asyncio").error("broken")
        accepted, broken = (journal.recv(65536).decode().splitlines() for _ in range(2))

    assert {"MESSAGE=accepted request_id=a-1", "REQUEST_ID=a-1", "PRIORITY=6"} <= set(accepted)
    assert {"MESSAGE=broken", "PRIORITY=3", "LOGGER=asyncio"} <= set(broken)
    assert "secret" not in "".join(accepted)
    assert not lines(stream)


def test_without_a_journal_that_listens_its_stream_gets_lines(
    stream: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.fstat(stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    monkeypatch.setattr(journald, "SOCKET", tmp_path / "none")
    log.configure("info", stream=stream)
    structlog.get_logger("edged").info("a")

    assert events(stream)[0]["event"] == "a"


def test_inherited_journal_variable_does_not_count(stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    log.configure("info", stream=stream)
    structlog.get_logger("edged").info("a")

    assert lines(stream)[0].startswith("{")


def test_terminal_gets_readable_lines_without_others_control_characters() -> None:
    main, terminal = os.openpty()
    with open(terminal, "w") as stream:  # noqa: PTH123 (a descriptor, not a path)
        log.configure("info", stream=stream)
        structlog.get_logger("edged").info("accepted", client="evil\x1b]0;title\x07", word="né")
        text = os.read(main, 4096).decode()
    os.close(main)

    assert "accepted" in text
    assert "né" in text
    assert "\x1b]0;" not in text


def test_second_configuration_replaces_the_first(stream: TextIO, tmp_path: Path) -> None:
    with (tmp_path / "second").open("w+") as second:
        log.configure("info", stream=stream)
        log.configure("info", stream=second)
        structlog.get_logger("edged").info("once")

        assert (len(lines(stream)), len(lines(second))) == (0, 1)


def test_closed_stderr_is_no_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as full:
        log.configure("info", stream=full)
        structlog.get_logger("edged").info("lost")
        with pytest.raises(OSError, match="No space"):
            full.close()

    assert capsys.readouterr().err == ""
    assert sys.stderr
