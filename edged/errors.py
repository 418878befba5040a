"""The one exception that carries a refusal or a failure to whoever asked."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Error codes of the protocol: the same on every way in."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    PROMPT_TOO_LONG = "prompt_too_long"
    BUSY = "busy"
    EXPIRED = "expired"
    ID_IN_USE = "id_in_use"
    NOT_ALLOWED = "not_allowed"
    LOW_MEMORY = "low_memory"
    TOO_HOT = "too_hot"
    MODEL_UNAVAILABLE = "model_unavailable"
    ENGINE_CRASHED = "engine_crashed"
    JOURNAL_FULL = "journal_full"
    ABANDONED = "abandoned"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL = "internal"


class EdgedError(Exception):
    """A refusal or failure that is told to the requester as it stands.

    Attributes:
        code: one of the protocol's codes.
        message: what was wrong, with the figures, and what to do.
        retry_after_s: seconds after which a repeat has a chance, where known.
        param: the field of the request that is at fault, where there is one.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retry_after_s: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.param = param


def invalid(message: str, *, param: str | None = None) -> EdgedError:
    """Return the error for a request that no repeat can mend."""
    return EdgedError(ErrorCode.INVALID, message, param=param)
