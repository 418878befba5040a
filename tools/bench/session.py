"""A run: every load on both sides in turn, round by round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.bench import client, figures, loads
from tools.bench.bandwidth import bytes_per_token, read_bytes_per_second
from tools.bench.client import Client
from tools.bench.loads import Beside, Load
from tools.bench.prompts import Writer
from tools.bench.results import Results
from tools.bench.sides import Edged, LlamaServer, Side
from tools.bench.upstream import Tools
from tools.bench.variants import variants

PROMPT_TOKENS, ANSWER_TOKENS = 512, 128  # llama-bench's own
STREAMS = 8
STREAM_PROMPT = 16
BESIDE_DELAY_SECONDS = 1.0

Figures = dict[str, float]


class Session:
    """Measures one model; what it finds is in `results`.

    Args:
        model: the GGUF file.
        tools: llama.cpp's.
        tables: edged's configuration: model.context and model.sequences are given.
        rounds: how often each load is measured on each side.
        select: try llama-server's settings for each load, instead of taking the first.
        results: where findings go.
    """

    def __init__(
        self,
        model: Path,
        tools: Tools,
        tables: dict[str, dict[str, Any]],
        *,
        rounds: int,
        select: bool,
        results: Results,
    ) -> None:
        self._model = model
        self._tools = tools
        self._tables = tables
        self._rounds = rounds
        self._select = select
        self.results = results

    @property
    def _context(self) -> int:
        return int(self._tables["model"]["context"])

    @property
    def _sequences(self) -> int:
        return int(self._tables["model"]["sequences"])

    # --- beside llama-bench and llama-batched-bench ---

    def alone(self, edged: Edged) -> None:
        """One stream beside llama-bench, and the share of the memory's bandwidth that it reaches."""
        settings = edged.settings()
        bench = self._tools.bench
        size = int(bytes_per_token(self._model, 0))

        def mine(name: str) -> None:
            [asking], cost = ask(edged, loads.alone(STREAM_PROMPT, ANSWER_TOKENS + 1)(Writer(name)))
            found = figures.decode(asking)
            self._note("decode", edged, found | cost(found["tokens"]))
            [asking], _ = ask(edged, loads.alone(PROMPT_TOKENS, 1)(Writer(f"{name} read")))
            self._note("prefill", edged, figures.prefill(asking))
            depth = STREAM_PROMPT + ANSWER_TOKENS / 2
            wanted = bytes_per_token(self._model, depth) * found["tokens/s"]
            readable = read_bytes_per_second(size, settings.threads)
            self.results.note("bandwidth", "edged", {"share": wanted / readable, "GB/s": wanted / 1e9})
            self.results.note("bandwidth", "memory", {"GB/s": readable / 1e9})

        def theirs(_: str) -> None:
            rate = bench(self._model, settings, generate=ANSWER_TOKENS)
            self.results.note("decode", "llama-bench", {"tokens/s": rate})
            rate = bench(self._model, settings, prompt=PROMPT_TOKENS)
            self.results.note("prefill", "llama-bench", {"tokens/s": rate})

        self._in_turn("one stream", mine, theirs)

    def eight(self, edged: Edged) -> None:
        """Eight streams beside llama-batched-bench."""
        settings = edged.settings()
        make = loads.together(STREAMS, STREAM_PROMPT, ANSWER_TOKENS)

        def mine(name: str) -> None:
            asking, cost = ask(edged, make(Writer(name)))
            found = figures.streams(asking)
            self._note("eight streams", edged, found | cost(found["tokens"]))

        def theirs(_: str) -> None:
            cells = self._context * self._sequences
            rate = self._tools.batched_bench(
                self._model,
                settings,
                prompt=STREAM_PROMPT,
                generate=ANSWER_TOKENS,
                streams=STREAMS,
                cells=cells,
            )
            self.results.note("eight streams", "llama-batched-bench", {"tokens/s": rate})

        self._in_turn("eight streams", mine, theirs)

    # --- beside llama-server ---

    def served(self, load: Load, edged: Edged) -> None:
        """Measure one load over HTTP beside llama-server's best setting for it."""
        tried = variants(
            edged.settings(), sequences=self._sequences, context=self._context, any_slots=load.any_slots
        )
        best = tried[0]
        if self._select:
            best = max(tried, key=lambda setting: self._try(load, setting))
        self.results.settings[load.name] = " ".join(best)
        with LlamaServer(self._model, self._tools, best).ready() as server:

            def measure(side: Side) -> Callable[[str], None]:
                def once(name: str) -> None:
                    asking, cost = ask(side, load.clients(Writer(name)))
                    found = figures.served(asking)
                    self._note(load.name, side, found | cost(found["tokens"]))

                return once

            self._in_turn(load.name, measure(edged), measure(server))

    def _try(self, load: Load, setting: list[str]) -> float:
        with LlamaServer(self._model, self._tools, setting).ready() as server:
            asking, _ = ask(server, load.clients(Writer(f"{load.name} trial")))
        rate = figures.served(asking)["tokens/s"]
        say(f"  llama-server {' '.join(setting)}: {rate:.1f} tokens/s")
        return rate

    def beside(self, edged: Edged) -> None:
        """Read a long prompt beside streams, on both sides."""
        [setting, *_] = variants(
            edged.settings(), sequences=self._sequences, context=self._context, any_slots=False
        )
        self.results.settings[loads.BESIDE] = " ".join(setting)
        with LlamaServer(self._model, self._tools, setting).ready() as server:

            def measure(side: Side) -> Callable[[str], None]:
                def once(name: str) -> None:
                    [unhindered], _ = ask(side, loads.alone(loads.BESIDE_PROMPT, 1)(Writer(f"{name} alone")))
                    asked = Beside(Writer(name), BESIDE_DELAY_SECONDS)
                    client.run(side.address, [*asked.streams, asked.reader], until=asked.reader)
                    self._note(loads.BESIDE, side, figures.beside(asked, unhindered))

                return once

            self._in_turn(loads.BESIDE, measure(edged), measure(server))

    # --- the rest ---

    def _in_turn(self, name: str, mine: Callable[[str], None], theirs: Callable[[str], None]) -> None:
        """Measure both sides in each round, now the one first, now the other."""
        for number in range(self._rounds):
            for side in (mine, theirs) if number % 2 == 0 else (theirs, mine):
                side(f"{name} {number}")
            say(f"  {name}: round {number + 1} of {self._rounds}")

    def _note(self, load: str, side: Side, found: Figures) -> None:
        self.results.note(load, side.name, found)


def ask(side: Side, clients: Sequence[Client]) -> tuple[Sequence[Client], Callable[[float], Figures]]:
    """Let clients ask a server; return them, and what gives the processor time for each token."""

    def used() -> Figures:
        return {**side.cpu(), "client": time.process_time()}

    before = used()
    client.run(side.address, clients)
    after = used()
    return clients, lambda tokens: figures.cpu_per_token(before, after, tokens)


def say(line: str) -> None:
    """Tell whoever waits how far the run is."""
    print(line, file=sys.stderr, flush=True)
