"""The loaded model as OpenAI lists models, and fetching others."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edged.errors import invalid
from edged.frontends.http import sse
from edged.frontends.http.openai_errors import HttpError
from edged.frontends.http.parameters import unknown
from edged.models.catalogue import CATALOGUE, Entry
from edged.models.fetch import Fetched, fetch

if TYPE_CHECKING:
    from edged.core import Core

PROGRESS_SECONDS = 0.25
DEFAULT_MODELS = ("default", "edged")
_FETCH_FIELDS = frozenset({"name", "url", "sha256"})


class ModelHandlers:
    """Handlers about models."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def index(self, _request: web.Request) -> web.Response:
        """List what is loaded."""
        return web.json_response({"object": "list", "data": self._loaded()})

    async def show(self, request: web.Request) -> web.Response:
        """Return one model by its name."""
        name, loaded = request.match_info["name"], self._loaded()
        for model in loaded:
            if model["id"] == name:
                return web.json_response(model)
        raise unknown_model(name, loaded[0]["id"] if loaded else None)

    def _loaded(self) -> list[dict[str, Any]]:
        if (model := self._core.model) is None:
            return []
        return [
            {
                "id": model.name,
                "object": "model",
                "created": int(model.created),
                "owned_by": "edged",
                "edged": model.facts,
            }
        ]


async def fetch_model(
    fields: Mapping[str, Any],
    models_dir: Path,
    request: web.Request,
    *,
    keepalive: float,
    on_fetched: Callable[[Fetched], None],
) -> web.StreamResponse:
    """Fetch a model into the daemon's directory and tell how far it is; a hang-up calls it off.

    Args:
        fields: the body: `name` of the catalogue, or `url` and `sha256`.
        models_dir: the directory.
        request: the request.
        keepalive: seconds after which a silent stream gets a comment.
        on_fetched: is told of the model when it is there.

    Raises:
        EdgedError: `invalid`, naming the field.
        HttpError: 404, the catalogue has no such model.
    """
    source, sha256 = _source(fields)
    progress: list[tuple[int, int | None]] = []
    cancelled = threading.Event()

    def note(done: int, total: int | None) -> None:
        progress[:] = [(done, total)]

    events = sse.EventStream(request)
    await events.open()
    work = asyncio.create_task(
        asyncio.to_thread(fetch, source, models_dir, sha256=sha256, progress=note, cancelled=cancelled)
    )
    try:
        silence = 0.0
        while not (await asyncio.wait({work}, timeout=PROGRESS_SECONDS))[0]:
            silence += PROGRESS_SECONDS
            if progress:
                done, total = progress.pop()
                await events.send(sse.data({"bytes_done": done, "bytes_total": total}))
                silence = 0.0
            elif silence >= keepalive:
                await events.send(sse.KEEP_ALIVE)
                silence = 0.0
        fetched = work.result()
        on_fetched(fetched)
        await events.send(sse.data({"path": str(fetched.path), "sha256": fetched.sha256}))
    except ConnectionError:
        raise
    except Exception as error:
        await events.fail(error)
    finally:
        cancelled.set()
        work.cancel()
    return events.response


def _source(fields: Mapping[str, Any]) -> tuple[Entry | str, str | None]:
    for name, value in fields.items():
        if name not in _FETCH_FIELDS:
            raise unknown(name, _FETCH_FIELDS)
        if value is not None and not isinstance(value, str):
            raise invalid(f"{name}: must be a string", param=name)
    model: str = fields.get("name") or ""
    url: str = fields.get("url") or ""
    sha256: str | None = fields.get("sha256")
    if bool(model) == bool(url):
        raise invalid("give exactly one of name and url", param="name")
    if url:
        return url, sha256
    if sha256 is not None:
        raise invalid("sha256: belongs to a url; the catalogue knows its own", param="sha256")
    if (entry := CATALOGUE.get(model)) is None:
        message = f"the catalogue has no model {json.dumps(model[:64])}, but {', '.join(CATALOGUE)}"
        raise HttpError(404, "model_not_found", message, param="name")
    return entry, None


def check_model(core: Core, name: str | None) -> None:
    """Refuse a request for another model than the loaded one.

    Raises:
        HttpError: 404.
    """
    loaded = core.model
    if name is not None and loaded is not None and name not in (loaded.name, *DEFAULT_MODELS):
        raise unknown_model(name, loaded.name)


def unknown_model(name: str, loaded: str | None) -> HttpError:
    """Return the refusal of a model that is not the loaded one."""
    has = f'loaded is {json.dumps(loaded)}: name that one, or "default"' if loaded else "none is loaded"
    return HttpError(
        404, "model_not_found", f"the model {json.dumps(name[:64])} is not served; {has}", param="model"
    )
