"""Logging: structlog over the standard library, one line an event, on stderr.

A terminal gets readable lines, systemd's journal fields (edged/journald.py), anything else lines of JSON.
Secrets and prompt texts are removed by their field's name, and an exception is one line unless the
level is debug. Get a logger with `structlog.get_logger(__name__)`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from edged import journald

Level = Literal["debug", "info", "warning", "error"]

_REMOVED = {"authorization", "body", "content", "cookie", "messages", "payload", "system", "text"}
_REMOVED_ENDINGS = ("api_key", "credential", "password", "prompt", "secret", "token")

_Event = MutableMapping[str, Any]


def configure(level: Level, *, stream: TextIO | None = None) -> None:
    """Send the events of structlog and of the standard library to `stream` (default: stderr).

    Another call replaces what an earlier one set up.
    """
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _shorten_exception,
        _remove_secrets,
    ]
    handler, rendering = _way_out(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # nobody reads a traceback about a stderr that is gone
    set_level(level)


def set_level(level: Level) -> None:
    """Show events of this level and above from now on."""
    logging.getLogger().setLevel(level.upper())


def _way_out(out: TextIO) -> tuple[logging.Handler, list[structlog.typing.Processor]]:
    """Return what takes events out of the process, and how it wants them."""
    if out.isatty():
        colors = "NO_COLOR" not in os.environ
        return logging.StreamHandler(out), [_escape_controls, structlog.dev.ConsoleRenderer(colors=colors)]
    json = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    if _is_journal(out, os.environ):
        with contextlib.suppress(OSError):
            return journald.JournalHandler(journald.SOCKET), [json]
    return logging.StreamHandler(out), [json]


def _is_journal(out: TextIO, environ: Mapping[str, str]) -> bool:
    """Say whether `out` itself is systemd's stream: the variable alone is inherited by every child."""
    try:
        stat = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def _shorten_exception(_logger: Any, _method: str, event: _Event) -> _Event:
    """Put an exception's type and first line into `error`; where it came from only at level debug.

    Later lines stay out at any level: a validation error quotes the input there.
    """
    given = event.pop("exc_info", None)
    error = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    if not isinstance(error, BaseException):
        return event
    event["error"] = _one_line(error)
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        event["traceback"] = list(_origin(error))
    return event


def _one_line(error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _origin(error: BaseException) -> list[str]:
    """Return the calls that led to an error and to the errors before it, outermost cause first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = _origin(before) if before else []
    frames = traceback.extract_tb(error.__traceback__)
    return [*lines, *(f"{f.filename}:{f.lineno} {f.name}" for f in frames), _one_line(error)]


def _remove_secrets(_logger: Any, _method: str, event: _Event) -> _Event:
    return _without_secrets(event)


def _without_secrets(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_secrets(value) if isinstance(value, Mapping) else value
        for name, value in fields.items()
        if not _is_secret(str(name))
    }


def _is_secret(name: str) -> bool:
    name = name.lower().replace("-", "_")
    return name in _REMOVED or name.endswith(_REMOVED_ENDINGS)


def _escape_controls(_logger: Any, _method: str, event: _Event) -> _Event:
    """Keep control characters of others' texts from the operator's terminal."""
    return {name: _printable(value) for name, value in event.items()}


def _printable(value: Any) -> Any:
    return repr(value) if isinstance(value, str) and not value.isprintable() else value
