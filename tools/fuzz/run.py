"""A run: each kind of odd input in turn, and what must hold afterwards."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tools.fuzz.gguf import fuzz_engine, fuzz_header
from tools.fuzz.http import fuzz_http
from tools.fuzz.messages import fuzz_messages
from tools.load.house import House
from tools.load.run import until_ready
from tools.trials import Tell, Verdict

_OF_THE_ENGINE = "edged.engine."


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be.

    Attributes:
        model: the GGUF file, a small one.
        seed: of every choice.
        requests: odd ones over HTTP, at most.
        messages: odd ones of the engine's.
        headers: damaged ones to read.
        models: damaged ones to load, at most.
        seconds: for requests, and again for models, at most.
    """

    model: Path
    seed: int
    requests: int
    messages: int
    headers: int
    models: int
    seconds: float


async def run(options: Options, directory: Path, tell: Tell = lambda line: None) -> Verdict:
    """Run and judge; state and log stay in the directory."""
    counts: Counter[str] = Counter()
    faults: list[str] = []

    def take(kind: str, outcome: tuple[Counter[str], list[str]]) -> None:
        tell(f"{kind}: {outcome[0].total()}, {len(outcome[1])} faults")
        counts[kind] += outcome[0].total()
        counts.update({f"{kind}_{name}": count for name, count in sorted(outcome[0].items())})
        faults.extend(f"{kind}: {fault}" for fault in outcome[1])

    def rng(kind: str) -> random.Random:
        return random.Random(f"{options.seed}/{kind}")

    take("messages", await fuzz_messages(rng("messages"), options.messages))
    scratch = directory / "header.gguf"
    take("headers", fuzz_header(options.model, scratch, rng("headers"), options.headers))
    model = directory / "model.gguf"
    shutil.copy(options.model, model)
    house = House(directory, model, context=256, sequences=2, threads=1, max_tokens=16)
    with house.running():
        async with house.session() as session:
            await until_ready(house, session)
            pid = house.engine_pid
            take(
                "requests",
                await fuzz_http(house.socket, rng("requests"), options.requests, options.seconds),
            )
            faults += _faults_in(house)
            if house.engine_pid != pid:
                faults.append("requests: the engine has died of one")
            take(
                "models",
                await fuzz_engine(house, session, model, rng("models"), options.models, options.seconds),
            )
            faults += _faults_in(house, without=_OF_THE_ENGINE)
            if not house.is_alive:
                faults.append("the daemon has ended")
    return Verdict(dict(counts), {}, faults)


def _faults_in(house: House, *, without: str | None = None) -> list[str]:
    """Return what the daemon's log tells that it should not, but for loggers whose name begins so."""
    return [
        f"the log tells: {event}"
        for event in house.log()
        if "raw" in event
        or (
            event.get("level") in ("error", "critical")
            and not (without and event["logger"].startswith(without))
        )
    ]
