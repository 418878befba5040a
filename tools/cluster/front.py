"""What stands before a cluster: a TCP balancer that passes each connection to a node that takes it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

_PIECE_BYTES = 65_536


class Front:
    """Takes turns among the nodes; a node that does not listen is passed over.

    Attributes:
        port: where it listens, on 127.0.0.1.

    Args:
        nodes: their ports, on 127.0.0.1.
    """

    def __init__(self, nodes: Sequence[int]) -> None:
        self.port = 0
        self._nodes = list(nodes)
        self._next = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection."""
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            for _ in self._nodes:
                self._next = (self._next + 1) % len(self._nodes)
                with contextlib.suppress(OSError):
                    far = await asyncio.open_connection("127.0.0.1", self._nodes[self._next])
                    await _join((reader, writer), far)
                    return
        except asyncio.CancelledError:
            pass  # the front stops
        finally:
            self._serving.discard(task)
            writer.close()


async def _join(
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    pumps = [asyncio.create_task(_pump(near[0], far[1])), asyncio.create_task(_pump(far[0], near[1]))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        near[1].close()
        far[1].close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while (data := await reader.read(_PIECE_BYTES)) and not writer.is_closing():
            writer.write(data)
            await writer.drain()
