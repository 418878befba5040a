"""What edgectl tells its user when something went wrong, and the code that it ends with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from edged.errors import EdgedError, ErrorCode


class Exit(IntEnum):
    """The exit codes of edgectl."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_PERMITTED = 4
    RETRY = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_MEANINGS: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "the request failed, was cancelled elsewhere, or a check found faults",
    Exit.USAGE: "wrong usage, or a name that nothing has: nothing was done",
    Exit.UNREACHABLE: "the daemon, or the broker, is not reachable, or went away",
    Exit.NOT_PERMITTED: "not permitted",
    Exit.RETRY: "refused for now (busy, too hot, no memory, no model, stopping): worth a retry",
    Exit.INTERRUPTED: "Ctrl-C; what was asked is cancelled in the daemon too",
    Exit.BROKEN_PIPE: "nobody reads the output any more; what was asked is cancelled",
}

_EXIT_OF_ERROR: Mapping[str, Exit] = {
    ErrorCode.BUSY: Exit.RETRY,
    ErrorCode.LOW_MEMORY: Exit.RETRY,
    ErrorCode.TOO_HOT: Exit.RETRY,
    ErrorCode.MODEL_UNAVAILABLE: Exit.RETRY,
    ErrorCode.SHUTTING_DOWN: Exit.RETRY,
    ErrorCode.NOT_ALLOWED: Exit.NOT_PERMITTED,
}


class CommandError(Exception):
    """Ends a command with one line on stderr.

    Attributes:
        message: what is wrong, in one line.
        exit: the code that edgectl ends with.
        hint: what to do about it, where something can be done.
        fields: the error object for `--json`.
    """

    def __init__(
        self, message: str, exit: Exit, *, hint: str = "", fields: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit = exit
        self.hint = hint
        self.fields = fields or {"message": message, "type": "edgectl", "code": exit.name.lower()}

    def __str__(self) -> str:
        line = " ".join(self.message.split())
        return f"{line} ({self.hint})" if self.hint else line


def error_of_fields(fields: Mapping[str, Any]) -> CommandError:
    """Return the error that an error object of the daemon describes."""
    code = str(fields.get("code") or ErrorCode.INTERNAL)
    after = fields.get("retry_after_s")
    return CommandError(
        f"{code}: {fields.get('message') or 'no reason given'}",
        _EXIT_OF_ERROR.get(code, Exit.FAILED),
        hint=f"retry in {after:.0f} s" if isinstance(after, (int, float)) else "",
        fields=fields,
    )


def error_of_exception(error: EdgedError) -> CommandError:
    """Return the error of a refusal that arose in edgectl's own process."""
    fields = {"message": error.message, "type": "edgectl", "param": error.param, "code": error.code.value}
    return CommandError(error.message, Exit.FAILED, fields=fields)
