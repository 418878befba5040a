"""Questions about texts, in the shapes of llama-server's /tokenize, /detokenize and /apply-template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edged.errors import invalid
from edged.frontends.http.chat import messages_of
from edged.frontends.http.context import client_of
from edged.frontends.http.models import check_model
from edged.frontends.http.parameters import optional, refuse_others
from edged.protocol import INT32_MAX, Request

if TYPE_CHECKING:
    from edged.core import Core

_TOKENIZE = frozenset({"model", "content", "add_special", "parse_special", "with_pieces"})
_DETOKENIZE = frozenset({"model", "tokens"})
_APPLY_TEMPLATE = frozenset({"model", "messages"})


async def tokenize(core: Core, body: Mapping[str, Any], request: web.Request) -> web.Response:
    """Return the tokens of a text: ids, or objects with id and piece.

    Raises:
        EdgedError: the request is refused, or fails.
        HttpError: 404, it is for another model.
    """
    _check(core, body, _TOKENIZE)
    content = body.get("content")
    if not isinstance(content, str):
        raise invalid("content: must be a text", param="content")
    tokens, pieces = await core.direct.tokenize(
        content,
        client_of(request),
        add_special=_flag(body, "add_special"),
        parse_special=_flag(body, "parse_special"),
        with_pieces=_flag(body, "with_pieces"),
    )
    if pieces is None:
        return web.json_response({"tokens": tokens})
    told = [{"id": id, "piece": _piece(piece)} for id, piece in zip(tokens, pieces, strict=True)]
    return web.json_response({"tokens": told})


async def detokenize(core: Core, body: Mapping[str, Any], request: web.Request) -> web.Response:
    """Return the text of tokens.

    Raises:
        EdgedError: the request is refused, or fails.
        HttpError: 404, it is for another model.
    """
    _check(core, body, _DETOKENIZE)
    tokens = body.get("tokens")
    if not isinstance(tokens, list) or not all(map(_may_be_token, tokens)):
        raise invalid("tokens: must be a list of token ids", param="tokens")
    return web.json_response({"content": await core.direct.detokenize(tokens, client_of(request))})


async def apply_template(core: Core, body: Mapping[str, Any], request: web.Request) -> web.Response:
    """Return a conversation put through the model's chat template.

    Raises:
        EdgedError: the request is refused, or fails.
        HttpError: 404, it is for another model.
    """
    _check(core, body, _APPLY_TEMPLATE)
    turns = Request.parse({"messages": messages_of(body.get("messages"))}).turns()
    return web.json_response({"prompt": await core.direct.render(turns, client_of(request))})


def _check(core: Core, body: Mapping[str, Any], served: frozenset[str]) -> None:
    refuse_others(body, served, {})
    check_model(core, optional(body, "model", str, "a string"))


def _may_be_token(value: Any) -> bool:
    return type(value) is int and abs(value) <= INT32_MAX


def _flag(body: Mapping[str, Any], name: str) -> bool:
    return optional(body, name, bool, "true or false") or False


def _piece(piece: bytes) -> str | list[int]:
    """Return a piece as text, or its bytes where they are no whole characters."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
