"""Refusals and failures as HTTP statuses and OpenAI's error objects."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web

from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

_STATUS = {
    ErrorCode.INVALID: 400,
    ErrorCode.PROMPT_TOO_LONG: 400,
    ErrorCode.NOT_ALLOWED: 403,
    ErrorCode.ID_IN_USE: 409,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.BUSY: 429,
    ErrorCode.INTERNAL: 500,
    ErrorCode.LOW_MEMORY: 503,
    ErrorCode.TOO_HOT: 503,
    ErrorCode.MODEL_UNAVAILABLE: 503,
    ErrorCode.ENGINE_CRASHED: 503,
    ErrorCode.ABANDONED: 503,
    ErrorCode.SHUTTING_DOWN: 503,
    ErrorCode.JOURNAL_FULL: 503,
    ErrorCode.EXPIRED: 504,
}
_OPENAI_CODE = {ErrorCode.PROMPT_TOO_LONG: "context_length_exceeded"}
_OPENAI_TYPE = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class HttpError(Exception):
    """What is answered instead of a result.

    Attributes:
        status: the HTTP status.
        code: the protocol's error code, or OpenAI's where the protocol has none.
        message: what was wrong and what to do.
        param: the field of the request that is at fault, where there is one.
        retry_after_s: seconds after which a repeat has a chance, where known.
        headers: header fields that belong to this answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(math.ceil(retry_after_s))

    def body(self) -> bytes:
        """Return the error object as JSON."""
        kind = _OPENAI_TYPE.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error: dict[str, Any] = {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }
        if self.retry_after_s is not None:
            error["retry_after_s"] = self.retry_after_s
        return json.dumps({"error": error}).encode()

    def response(self) -> web.Response:
        """Return the whole answer."""
        return web.Response(
            status=self.status, body=self.body(), headers=self.headers, content_type="application/json"
        )

    def bare_response(self) -> bytes:
        """Return the whole answer as bytes, for a connection that gets no other."""
        body = self.body()
        fields = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **self.headers,
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


def http_error(error: Exception) -> HttpError:
    """Translate any exception; the unexpected one is logged and told by a reference only."""
    match error:
        case HttpError():
            return error
        case EdgedError():
            return HttpError(
                _STATUS[error.code],
                _OPENAI_CODE.get(error.code, error.code.value),
                error.message,
                param=error.param,
                retry_after_s=error.retry_after_s,
            )
        case web.HTTPNotFound():
            return HttpError(404, "not_found", "there is no such address")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            return HttpError(
                405,
                "method_not_allowed",
                f"the method is not served at this address, only {allowed}",
                headers={"Allow": allowed},
            )
    reference = secrets.token_hex(4)
    _log.error("unexpected error in a request", reference=reference, exc_info=error)
    return HttpError(
        500, ErrorCode.INTERNAL.value, f"an error of edged's own: its log has more under {reference}"
    )
