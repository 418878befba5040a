"""What a server's processes take in memory, and how soon they are there: each side alone, started anew."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.bench import client, loads
from tools.bench.processes import memory_bytes, watched
from tools.bench.prompts import Writer
from tools.bench.results import Results
from tools.bench.session import STREAM_PROMPT, STREAMS, ask, say
from tools.bench.sides import Edged, LlamaServer
from tools.bench.upstream import Tools
from tools.bench.variants import arguments

MEMORY, SMALL_MEMORY, START = "memory", "memory, 4 × 2,048", "start"
_SMALL = {"context": 2048, "sequences": 4}
_REQUESTS = 24
# Weights count once: where the library keeps a second copy in another layout, the mapped one need not stay.
_BUFFER = re.compile(r"(?:Mapped model|KV|compute|output) buffer size *= *([\d.]+) MiB")

Tables = dict[str, dict[str, Any]]


def needed_bytes(log: Iterable[str]) -> float:
    """Return what model and context need, as llama.cpp's log states it: weights, KV cache and buffers."""
    return 2**20 * sum(float(size) for line in log for size in _BUFFER.findall(line))


class Lifetime:
    """Starts each side again and again.

    Args:
        model: the GGUF file.
        tools: llama.cpp's.
        tables: edged's configuration: model.context and model.sequences are given.
        rounds: how often.
        results: where findings go.
    """

    def __init__(self, model: Path, tools: Tools, tables: Tables, *, rounds: int, results: Results) -> None:
        self._model = model
        self._tools = tools
        self._tables = tables
        self._rounds = rounds
        self._results = results

    def memory(self) -> None:
        """Measure edged's memory after a load, and llama-server's peak, with the same cells."""
        for name, tables in ((MEMORY, self._tables), (SMALL_MEMORY, {**self._tables, "model": _SMALL})):
            for number in range(self._rounds):
                self._memory(name, tables, Writer(f"{name} {number}"))
                say(f"  {name}: round {number + 1} of {self._rounds}")

    def _memory(self, name: str, tables: Tables, writer: Writer) -> None:
        clients = loads.usual(STREAMS, _REQUESTS)
        sequences, cells = (
            tables["model"]["sequences"],
            tables["model"]["sequences"] * tables["model"]["context"],
        )
        with Edged(self._model, tables, log_level="debug").ready() as edged:
            settings, pids = edged.settings(), edged.pids()
            with watched(pids.values(), self._model) as peak:
                client.run(edged.address, clients(writer))
            after = {who: memory_bytes(pid, self._model) for who, pid in pids.items()}
            cache = edged.status()["engine"].get("prefix_cache") or {"max_bytes": 0}
        needed = needed_bytes(edged.log)
        self._results.note(
            name,
            edged.name,
            {
                "parent MB": after["parent"] / 1e6,
                "child MB": after["child"] / 1e6,
                "child over its need MB": (after["child"] - needed) / 1e6,
                "together MB": sum(after.values()) / 1e6,
                "peak MB": peak.bytes / 1e6,
            },
        )
        # As small as it can be with these cells: edged's pieces, and its bound on kept prompts.
        setting = [
            *arguments(settings, cells=cells), "--parallel", str(sequences), "--no-kv-unified",
            "-fa", "on" if settings.flash_attention else "off", "--ubatch-size", str(settings.ubatch_tokens),
            "--cache-ram", str(-(-int(cache["max_bytes"]) // 2**20)),
        ]  # fmt: skip
        self._results.settings[name] = " ".join(setting)
        with LlamaServer(self._model, self._tools, setting).ready() as server:
            with watched(server.pids().values(), self._model) as peak:
                client.run(server.address, clients(writer))
            self._results.note(name, server.name, {"peak MB": peak.bytes / 1e6})

    def start(self) -> None:
        """Measure how soon the daemon answers, and how soon it has answered a first prompt."""
        prompt = loads.alone(STREAM_PROMPT, 1)
        for number in range(self._rounds):
            writer = Writer(f"{START} {number}")
            with Edged(self._model, self._tables) as edged:
                health = edged.wait("/health", status=None)  # that it is still loading is an answer
                [asking], _ = ask(edged, prompt(writer))
                [reply] = asking.replies
                first = reply.sent + reply.first_token - edged.spawned
                settings = edged.settings()
            ready = edged.logged("the engine is ready")
            assert ready is not None
            load = float(ready["load_seconds"])
            self._results.note(
                START,
                edged.name,
                {
                    "/health s": health,
                    "model load s": load,
                    "first token s": first,
                    "first token over model load s": first - load,
                },
            )
            cells = self._tables["model"]["context"] * self._tables["model"]["sequences"]
            with LlamaServer(self._model, self._tools, arguments(settings, cells=cells)).ready() as server:
                [asking], _ = ask(server, prompt(writer))
                [reply] = asking.replies
                first = reply.sent + reply.first_token - server.spawned
            self._results.note(START, server.name, {"first token s": first})
            say(f"  {START}: round {number + 1} of {self._rounds}")
