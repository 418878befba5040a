"""Who may ask over HTTP: the token of the TCP listener, and what browsers say of themselves."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web

from edged.errors import EdgedError, ErrorCode
from edged.frontends.http.openai_errors import HttpError

_PREFLIGHT_SECONDS = "600"


class Gate:
    """Lets requests through, or says why not."""

    def __init__(self, *, host: str, token: str | None, allowed_origins: Collection[str]) -> None:
        self._host = host
        self._token = token
        self._allowed_origins = frozenset(allowed_origins)

    def allow_origins(self, origins: Collection[str]) -> None:
        """Replace the allowed origins."""
        self._allowed_origins = frozenset(origins)

    def check_origin(self, request: web.Request) -> str | None:
        """Return the request's allowed origin, None if it comes from no web page.

        Raises:
            EdgedError: `not_allowed`.
        """
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._allowed_origins:
            raise _not_allowed("pages of this origin may not ask: http.allowed_origins lists those that may")
        return origin

    def check_host(self, request: web.Request) -> None:
        """Refuse a foreign name in Host, which a page that rebinds its name would send.

        Raises:
            EdgedError: `not_allowed`.
        """
        known = {"localhost", self._host}
        if request.transport is not None:
            known.add(request.transport.get_extra_info("sockname")[0])
        try:
            name = urlsplit(f"//{request.headers.get('Host', '')}").hostname
        except ValueError:
            name = None
        if name not in known:
            names = ", ".join(sorted(filter(None, known)))
            raise _not_allowed(f"the Host must be one of {names}")

    def check_token(self, request: web.Request) -> None:
        """Compare the bearer token in constant time.

        Raises:
            HttpError: 401.
        """
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        sent = given.strip().encode(errors="surrogateescape")
        if (
            self._token is None
            or kind.lower() != "bearer"
            or not hmac.compare_digest(sent, self._token.encode())
        ):
            raise HttpError(
                401,
                "invalid_api_key",
                "this address wants edged's token, as Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="edged"'},
            )


def preflight(request: web.Request) -> web.Response | None:
    """Answer a browser that asks whether its page may ask; None if this is no such question."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", ""),
        "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
    }
    return web.Response(status=204, headers=headers)


def cors_headers(origin: str) -> dict[str, str]:
    """Return what lets a page of an allowed origin read the answer."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Location, Retry-After, X-Request-Id",
        "Vary": "Origin",
    }


def _not_allowed(message: str) -> EdgedError:
    return EdgedError(ErrorCode.NOT_ALLOWED, message)
