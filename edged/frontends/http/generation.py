"""Serving a completion: from a body to requests of the core, and from their frames to an answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edged.errors import ErrorCode
from edged.frontends.http.answer import Answer
from edged.frontends.http.context import REQUEST_ID, client_of
from edged.frontends.http.follower import Follower
from edged.frontends.http.models import DEFAULT_MODELS, check_model
from edged.frontends.http.openai_errors import HttpError
from edged.frontends.http.parameters import Asked
from edged.frontends.http.sse import EventStream
from edged.frontends.http.wire import Wire
from edged.protocol import SEED_MAX, Client, Failed, Request

if TYPE_CHECKING:
    from edged.core import Admitted, Core, Ticket


async def complete(
    core: Core, wire: type[Wire], body: dict[str, Any], request: web.Request, *, keepalive: float
) -> web.StreamResponse:
    """Answer a request for a completion; a hang-up cancels all that it began.

    Args:
        core: where requests are answered.
        wire: the kind of completion.
        body: the request's JSON object.
        request: the request.
        keepalive: seconds after which a silent stream gets a comment.

    Raises:
        EdgedError: the request is refused, or fails before its answer has begun.
        HttpError: likewise, where HTTP has a status of its own for it.
    """
    asked = wire.translate(body)
    check_model(core, asked.model)
    name = request.get(REQUEST_ID) or (uuid.uuid4().hex if asked.n > 1 else None)
    parts = _parts(asked, name)
    client = client_of(request, asked.user)
    admitted: list[Admitted] = []
    try:
        for part in parts:
            await _submit(core, part, client, admitted)
        request[REQUEST_ID] = name or admitted[0].ticket.id
        top_logprobs = parts[0].top_logprobs if parts[0].logprobs else None
        answer = Answer(
            [wire(index, top_logprobs=top_logprobs) for index in range(asked.n)],
            id=request[REQUEST_ID],
            created=admitted[0].ticket.created,
            model=core.model.name if core.model else DEFAULT_MODELS[0],
            include_usage=asked.include_usage,
        )
        if parts[0].stream:
            return await _stream(request, answer, admitted, keepalive)
        return await _whole(answer, admitted)
    finally:
        for entry in admitted:
            if not entry.repeated:
                entry.ticket.cancel()


def _parts(asked: Asked, name: str | None) -> list[Request]:
    """Return the core's requests: one, or `<name>.0` and so on, one a choice.

    Raises:
        EdgedError: `invalid`, naming the field.
    """
    if asked.n == 1:
        return [Request.parse({**asked.fields, "id": name})]
    first = Request.parse({**asked.fields, "id": f"{name}.0"})
    return [
        first.model_copy(update={"id": f"{name}.{index}", "seed": _seed(first.seed, index)})
        for index in range(asked.n)
    ]


def _seed(seed: int | None, index: int) -> int | None:
    """Return the seed of a choice: one for all would give all the same text."""
    return None if seed is None else (seed + index) % (SEED_MAX + 1)


async def _submit(core: Core, part: Request, client: Client, admitted: list[Admitted]) -> None:
    """Have a request admitted and add it to `admitted`.

    Raises:
        EdgedError: the core refuses it, or it repeats one that failed.
        HttpError: 409, it repeats one that still runs.
    """
    entry = await core.submit(part, client)
    admitted.append(entry)
    if entry.repeated:
        ticket = entry.ticket
        if ticket.terminal is None:
            address = f"/v1/requests/{ticket.id}"
            raise HttpError(
                409,
                ErrorCode.ID_IN_USE.value,
                f"the request {ticket.id} is running already: {address} tells how far it is",
                headers={"Location": address},
            )
        if isinstance(ticket.terminal, Failed):
            raise ticket.terminal.error()


async def _whole(answer: Answer, admitted: Sequence[Admitted]) -> web.Response:
    async def keep(index: int, ticket: Ticket) -> None:
        answer.take(index, await ticket.wait())

    await _all(keep(index, entry.ticket) for index, entry in enumerate(admitted))
    return web.json_response(answer.whole())


async def _stream(
    request: web.Request, answer: Answer, admitted: Sequence[Admitted], keepalive: float
) -> web.StreamResponse:
    events = EventStream(request)
    await events.open()
    keeper = asyncio.create_task(events.keep_alive(keepalive))
    try:
        await _all(
            Follower(entry, partial(answer.events, index), events).run()
            for index, entry in enumerate(admitted)
        )
        await events.send(answer.close())
    except ConnectionError:
        raise
    except Exception as error:
        await events.fail(error)
    finally:
        keeper.cancel()
    return events.response


async def _all(parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all choices; the first error ends it."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
