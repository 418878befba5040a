"""One event of the daemon's log: read from a line of JSON or an entry of the journal, and shown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from edged.cli.terminal import harmless
from edged.journald import word

LEVELS = ("debug", "info", "warning", "error", "critical")
_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "31"}
_PRIORITIES = {"7": "debug", "6": "info", "5": "info", "4": "warning", "3": "error"}
_OWN_FIELDS = {"event", "level", "timestamp", "logger"}
_JOURNALS = re.compile("_|SYSLOG_|(MESSAGE|PRIORITY|LOGGER)$")
_INDENT = " " * 24


class Event(NamedTuple):
    """What was logged.

    Attributes:
        words: what happened.
        moment: when; None where the line does not say.
        level: None where the line does not say.
        logger: which module told.
        fields: what else is known.
    """

    words: str
    moment: datetime | None = None
    level: str | None = None
    logger: str | None = None
    fields: Mapping[str, Any] = {}

    @property
    def request_id(self) -> str | None:
        """The request that it is about."""
        return self.fields.get("request_id")

    def as_json(self) -> dict[str, Any]:
        """Return it as the daemon writes lines of JSON."""
        moment = self.moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if self.moment else None
        head = {"timestamp": moment, "level": self.level, "event": self.words, "logger": self.logger}
        return {**self.fields, **head}


def of_line(line: str) -> Event:
    """Return the event in a line; one that is no JSON of the daemon's stands for itself."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not isinstance(given.get("event"), str):
        return Event(line.rstrip())
    level, logger = given.get("level"), given.get("logger")
    return Event(
        words=given["event"],
        moment=_moment(given.get("timestamp")),
        level=level if level in LEVELS else None,
        logger=logger if isinstance(logger, str) else None,
        fields={name: value for name, value in given.items() if name not in _OWN_FIELDS},
    )


def of_entry(entry: Mapping[str, Any]) -> Event:
    """Return the event in an entry of the journal, as `journalctl -o json` gives it."""
    message, identifier = _text(entry.get("MESSAGE")), _text(entry.get("SYSLOG_IDENTIFIER"))
    moment = None
    if (stamp := _text(entry.get("__REALTIME_TIMESTAMP"))).isdigit():
        moment = datetime.fromtimestamp(int(stamp) / 1e6, UTC)
    level = _PRIORITIES.get(_text(entry.get("PRIORITY")) or "6", "critical")
    if identifier not in ("edged", ""):
        return Event(f"{identifier}: {message}", moment, level)
    if message.startswith("{"):  # a daemon that had only its stderr to write to
        event = of_line(message)
        return event._replace(moment=event.moment or moment, level=event.level or level)
    fields = {name.lower(): _text(value) for name, value in entry.items() if not _JOURNALS.match(name)}
    # The message has the fields in words, too, behind what happened.
    ends = [place for name in fields if (place := message.find(f" {name}=")) >= 0]
    logger = _text(entry.get("LOGGER")) or None
    return Event(message[: min(ends, default=len(message))], moment, level, logger, fields)


def rendered(event: Event, *, colours: bool) -> str:
    """Return an event as a person reads it: one line, and below it lists such as stacks."""
    moment = event.moment.astimezone().strftime("%m-%d %H:%M:%S") if event.moment else ""
    level = event.level or ""
    words, lists = [event.words], []
    for name, value in event.fields.items():
        if listed := _listed(value):
            lists += [f"{name}:", *(f"  {one}" for one in listed)]
        elif value is not None:
            words.append(f"{name}={word(_text(value))}")
    head = f"{moment:<14} {level:<8} "
    line = harmless("  ".join([words[0], " ".join(words[1:])]).rstrip().replace("\n", " "))
    below = "".join(f"\n{_INDENT}{harmless(one)}" for one in lists)
    if colours and (colour := _COLOURS.get(level)):
        return f"\x1b[{colour}m{head}{line}\x1b[0m{below}"
    return f"{head}{line}{below}"


def _moment(given: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    """Return a field's value: the journal gives bytes as numbers, and what came twice as a list."""
    match value:
        case None:
            return ""
        case str():
            return value
        case [int(), *_] if all(isinstance(one, int) and 0 <= one < 256 for one in value):
            return bytes(value).decode(errors="replace")
        case [str(), *_]:
            return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False)


def _listed(value: Any) -> list[str]:
    """Return the texts of a list such as a stack, which the journal holds as JSON."""
    if isinstance(value, str) and value.startswith('["'):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return value
    return []
