"""OpenAI's embeddings."""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edged.errors import invalid
from edged.frontends.http.context import client_of
from edged.frontends.http.models import check_model
from edged.frontends.http.parameters import NOT_SERVED, optional, refuse_others, user_of

if TYPE_CHECKING:
    from edged.core import Core
    from edged.engine.embeddings import Embedding

_SERVED = frozenset({"model", "input", "encoding_format", "user"})
_REFUSED: Mapping[str, tuple[Any, ...]] = {**NOT_SERVED, "dimensions": ()}
_FORMATS = ("float", "base64")


async def embed(core: Core, body: Mapping[str, Any], request: web.Request) -> web.Response:
    """Answer a request for embeddings; a hang-up cancels it.

    Raises:
        EdgedError: the request is refused, or fails.
        HttpError: 404, it is for another model.
    """
    refuse_others(body, _SERVED, _REFUSED)
    check_model(core, optional(body, "model", str, "a string"))
    encoding = optional(body, "encoding_format", str, "a string") or "float"
    if encoding not in _FORMATS:
        raise invalid(f"encoding_format: must be {' or '.join(_FORMATS)}", param="encoding_format")
    embeddings = await core.direct.embed(_texts(body.get("input")), client_of(request, user_of(body)))
    tokens = sum(embedding.tokens for embedding in embeddings)
    head = {
        "object": "list",
        "model": core.model.name if core.model else None,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    data = await _data(embeddings, in_base64=encoding == "base64")
    return web.Response(
        body=b'%b, "data": [%b]}' % (json.dumps(head).encode()[:-1], data), content_type="application/json"
    )


def _texts(given: Any) -> Sequence[str]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise invalid("input: must be a text or a list of texts; token ids are not served", param="input")
    return given


async def _data(embeddings: Sequence[Embedding], *, in_base64: bool) -> bytes:
    """Return the elements of the list of embeddings as JSON, letting others have their turn in between."""
    elements = []
    for index, (vector, _) in enumerate(embeddings):
        element = {
            "object": "embedding",
            "index": index,
            "embedding": vector if in_base64 else array("f", base64.b64decode(vector)).tolist(),
        }
        elements.append(json.dumps(element).encode())
        await asyncio.sleep(0)
    return b", ".join(elements)
