"""Reading a request's body: bounded in size and time, JSON whatever its content type says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import HttpVersion11, web

from edged.errors import EdgedError, ErrorCode, invalid
from edged.frontends.http.connection import ended_early
from edged.frontends.http.context import connection_of
from edged.frontends.http.openai_errors import HttpError
from edged.protocol import parse_json


async def read_object(request: web.Request, *, limit: int, timeout: float) -> dict[str, Any]:
    """Return the JSON object that the body holds.

    Args:
        request: the request.
        limit: bytes that the body may have.
        timeout: seconds that it may take.

    Raises:
        EdgedError: `too_large` with both figures, or `invalid`.
        HttpError: 408, it took too long.
    """
    if (length := request.content_length or 0) > limit:
        raise _too_large(f"{length} bytes", limit)
    if encoding := request.headers.get("Content-Encoding"):
        raise invalid(f"Content-Encoding {encoding[:32]} is not served: send the body as it is")
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for piece in pieces(request):
                body += piece
                if len(body) > limit:
                    raise _too_large(f"more than {limit} bytes", limit)
    except TimeoutError:
        raise HttpError(408, "invalid", f"the body was not complete within {timeout:g} seconds") from None
    if not body:
        raise invalid("the body is empty: send a JSON object")
    fields = parse_json(bytes(body))
    if not isinstance(fields, dict):
        raise invalid("the body is no JSON object")
    return fields


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body as it comes; who waits to be asked for it is asked.

    Raises:
        EdgedError: `invalid`, it broke off or is not framed as HTTP wants it.
    """
    if connection_of(request).half_closed and not request.content.is_eof():
        raise ended_early()
    expects = request.headers.get("Expect", "").lower() == "100-continue"
    if expects and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # that was not yet the answer
    try:
        while piece := await request.content.readany():
            yield piece
    except (ValueError, web.RequestPayloadError):
        raise invalid("the body is not framed as HTTP wants it") from None


async def later(_request: web.Request) -> None:
    """Put off the answer to `Expect: 100-continue` until the body is wanted."""


def _too_large(size: str, limit: int) -> EdgedError:
    return EdgedError(
        ErrorCode.TOO_LARGE, f"the body has {size}, {limit} are allowed: shorten it (limits.max_prompt_bytes)"
    )
