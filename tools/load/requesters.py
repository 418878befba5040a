"""The clients: each asks, reads or leaves as it was drawn, and asks again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tools.load.asks import Ask

SLOW_SECONDS = 0.05  # of a slow reader, between two reads
POLL_SECONDS = 0.02


@dataclass(slots=True)
class Account:
    """What has become of a request.

    Attributes:
        ask: what was asked.
        status: HTTP's; 0: the client had left before.
        text: of the answer, as it came.
        ends: finish reasons and error codes, as they came: one, unless the client left.
        is_whole: whether the stream ended as it should.
        left: whether the client left before the end.
        frames: those that the daemon keeps of it; None: it knows no such request.
    """

    ask: Ask
    status: int = 0
    text: str = ""
    ends: list[str] = field(default_factory=list)
    is_whole: bool = False
    left: bool = False
    frames: list[dict[str, Any]] | None = None


async def ask(session: aiohttp.ClientSession, what: Ask) -> Account:
    """Ask, and behave as drawn; return what came of it once the daemon has ended it, too."""
    account = Account(what)
    headers = {"X-Request-Id": what.id}
    if what.manner == "hangs_up_at_once":
        posting = asyncio.create_task(_post(session, account, headers))
        await asyncio.sleep(0)
        posting.cancel()
        account.left = True
        await asyncio.gather(posting, return_exceptions=True)
    else:
        await _post(session, account, headers)
    account.frames = await _kept_frames(session, what.id)
    return account


async def _post(session: aiohttp.ClientSession, account: Account, headers: dict[str, str]) -> None:
    async with session.post(account.ask.path, json=account.ask.fields, headers=headers) as response:
        account.status = response.status
        if response.status != 200:
            account.ends.append(str((await response.json())["error"]["code"]))
            account.is_whole = True
        elif account.ask.streams:
            await _read_stream(session, response, account)
        else:
            body = await response.json()
            _take(body, account)
            account.is_whole = True


async def _read_stream(
    session: aiohttp.ClientSession, response: aiohttp.ClientResponse, account: Account
) -> None:
    manner, lines = account.ask.manner, 0
    async for raw in response.content:
        line = raw.decode().strip()
        if line == "data: [DONE]":
            account.is_whole = True
        elif line.startswith("data: "):
            _take(json.loads(line[6:]), account)
        lines += bool(line)
        if manner == "reads_slowly":
            await asyncio.sleep(SLOW_SECONDS)
        elif lines == account.ask.lines and line:
            if manner == "hangs_up":
                account.left = True
                response.close()
                return
            if manner == "cancels":
                async with session.delete(f"/v1/requests/{account.ask.id}"):
                    pass


def _take(body: dict[str, Any], account: Account) -> None:
    """Take a chunk, a whole answer or an error."""
    if "error" in body:
        account.ends.append(str(body["error"]["code"]))
        account.is_whole = True
    for choice in body.get("choices", ()):
        part = choice.get("delta") or choice.get("message") or choice
        account.text += part.get("content") or part.get("text") or ""
        if choice.get("finish_reason"):
            account.ends.append(choice["finish_reason"])


async def _kept_frames(session: aiohttp.ClientSession, id: str) -> list[dict[str, Any]] | None:
    """Wait until the daemon has ended a request, and return the frames that it keeps of it."""
    while True:
        async with session.get(f"/v1/requests/{id}") as response:
            if response.status == 404:
                return None
            body = await response.json()
        if body["state"] == "finished":
            frames: list[dict[str, Any]] = body["frames"]
            return frames
        await asyncio.sleep(POLL_SECONDS)


async def work_off(
    session: aiohttp.ClientSession, asks: Callable[[], Ask | None], note: Callable[[Account], Awaitable[None]]
) -> None:
    """Be one client: ask what `asks` gives until it gives None, and note what came of each."""
    while (what := asks()) is not None:
        await note(await ask(session, what))
