"""Taking a model's file from a client that may read it, into the directory that the daemon sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from edged.errors import invalid
from edged.frontends.http.body import pieces
from edged.frontends.http.openai_errors import HttpError
from edged.frontends.http.parameters import unknown
from edged.models.incoming import Incoming

_BLOCK_BYTES = 1 << 20
_PARAMETERS = frozenset({"name", "sha256"})


async def import_model(request: web.Request, models_dir: Path, *, timeout: float) -> web.Response:
    """Take the body as a model's file; a hang-up leaves nothing of it.

    Args:
        request: with `name` and perhaps `sha256` in its address, and the file as its body.
        models_dir: the directory.
        timeout: seconds that the client may send nothing.

    Raises:
        EdgedError: `invalid` or `model_unavailable`, it can't be taken.
        HttpError: 411, its length is not known; 408, nothing came any more.
    """
    for key in request.query:
        if key not in _PARAMETERS:
            raise unknown(key, _PARAMETERS)
    if not (name := request.query.get("name")):
        raise invalid("name: the file's name is missing in the address: ?name=model.gguf", param="name")
    if (length := request.content_length) is None:
        raise HttpError(411, "invalid", "the file's length is wanted, in Content-Length")
    incoming = Incoming(models_dir, name, length, request.query.get("sha256"))
    try:
        await asyncio.to_thread(incoming.begin)
        async for block in _blocks(request, timeout):
            await asyncio.to_thread(incoming.write, block)
        placed = await asyncio.to_thread(incoming.put_in_place)
    finally:
        # In a thread: it waits for the step that a hang-up has left alone.
        asyncio.get_running_loop().run_in_executor(None, incoming.close)
    return web.json_response({"path": str(placed.path), "sha256": placed.sha256})


async def _blocks(request: web.Request, timeout: float) -> AsyncIterator[bytearray]:
    """Yield the body in blocks that are worth a step of their own."""
    body = pieces(request)
    block = bytearray()
    while True:
        try:
            async with asyncio.timeout(timeout):
                piece = await anext(body, b"")
        except TimeoutError:
            message = f"nothing more of the file came for {timeout:g} seconds"
            raise HttpError(408, "invalid", message) from None
        block += piece
        if len(block) >= _BLOCK_BYTES or not piece:
            yield block
            block = bytearray()
        if not piece:
            return
