"""A run: a daemon, its clients, kills of its engine, samples of its memory, a verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tools.load.asks import Ask, draw_asks
from tools.load.footprint import Footprint, Memory, footprint, memory
from tools.load.house import PREFIX_BYTES, House, status
from tools.load.requesters import Account, ask, work_off
from tools.load.verdict import Judge, compare
from tools.trials import Tell, Verdict

START_SECONDS = 120.0
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.1
REST_SECONDS = 1.0
SETTLE_SECONDS = 5.0
WARM_UP_REQUESTS = 40
CAPACITY_TOKENS = 512  # of the answers that must be computed at once after the run


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be.

    Attributes:
        model: the GGUF file.
        seed: of every choice.
        requests: how many, unless `seconds` says how long.
        clients: how many at once.
        kills: of the engine, spread over the requests.
        seconds: clients ask for so long; 0: until `requests` are answered.
        sample_seconds: between two looks at the processes' memory.
        context: tokens of one request.
        sequences: requests that run at once.
        threads: that compute; None: as many as edged chooses.
        prefix_bytes: of the prefix cache.
    """

    model: Path
    seed: int
    requests: int = 1000
    clients: int = 50
    kills: int = 5
    seconds: float = 0.0
    sample_seconds: float = 2.0
    context: int = 1024
    sequences: int = 4
    threads: int | None = None
    prefix_bytes: int = PREFIX_BYTES


@dataclass(slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        verdict: whether everything holds, and the counts.
        samples: (seconds, the daemon's memory, the engine's) while clients asked.
    """

    verdict: Verdict
    samples: list[tuple[float, Memory, Memory]] = field(default_factory=list)


class Load:
    """All clients' requests: how many are to come, and what came of the others.

    Attributes:
        ended: how many have.
        judge: of them.

    Args:
        options: of the run.
    """

    def __init__(self, options: Options) -> None:
        self.ended = 0
        self.judge = Judge()
        self._end_of_one = asyncio.Condition()
        self._options = options
        self._left = options.requests
        self._end = time.monotonic() + options.seconds

    async def note(self, account: Account) -> None:
        """Take note of a request that has ended."""
        self.judge.take(account)
        async with self._end_of_one:
            self.ended += 1
            self._end_of_one.notify_all()

    async def until_ended(self, count: float) -> None:
        """Wait until so many have."""
        async with self._end_of_one:
            await self._end_of_one.wait_for(lambda: self.ended >= count)

    def asks_of(self, client: int) -> Callable[[], Ask | None]:
        """Return what gives a client its next request, and None when it is to stop."""
        asks: Iterator[Ask] = draw_asks(client, random.Random(f"{self._options.seed}/{client}"))

        def next_ask() -> Ask | None:
            if self._options.seconds:
                return next(asks) if time.monotonic() < self._end else None
            self._left -= 1
            return next(asks) if self._left >= 0 else None

        return next_ask


async def run(options: Options, directory: Path, tell: Tell = lambda line: None) -> Outcome:
    """Run and judge; state and log stay in the directory."""
    house = House(
        directory,
        options.model,
        context=options.context,
        sequences=options.sequences,
        threads=options.threads,
        prefix_bytes=options.prefix_bytes,
    )
    with house.running():
        async with house.session() as session:
            await until_ready(house, session)
            await _warm_up(session, options)
            await asyncio.sleep(REST_SECONDS)  # the last connection is closed by then
            before = _footprints(house)
            load = Load(options)
            outcome = Outcome(Verdict({}, {}))
            sampling = asyncio.create_task(_sample(house, outcome, options.sample_seconds))
            killing = asyncio.create_task(_kill(house, session, load, options, tell))
            clients = [
                work_off(session, load.asks_of(client), load.note) for client in range(options.clients)
            ]
            stuck = await _wait(clients, load)
            sampling.cancel()
            kills = await killing if not stuck else options.kills
            faults = [stuck] if stuck else await _aftermath(house, session, options, before)
    verdict = outcome.verdict = load.judge.verdict(house.log(), kills)
    verdict.faults[:0] = faults
    return outcome


async def until_ready(house: House, session: aiohttp.ClientSession) -> None:
    """Wait until the engine serves.

    Raises:
        RuntimeError: it never will.
        TimeoutError: it does not in time.
    """
    async with asyncio.timeout(START_SECONDS):
        while True:
            if not house.is_alive:
                raise RuntimeError("the daemon has ended; its log says why")
            with suppress(aiohttp.ClientConnectionError):
                found = await status(session)
                if found["engine"]["state"] == "ready":
                    return
                if found["engine"]["state"] == "failed":
                    raise RuntimeError(f"the engine can't be started: {found['reason']}")
            await asyncio.sleep(POLL_SECONDS)


async def _warm_up(session: aiohttp.ClientSession, options: Options) -> None:
    """Ask some of what will be asked: what is taken once is no growth."""
    left = [WARM_UP_REQUESTS]
    asks = draw_asks(options.clients, random.Random(f"{options.seed}/warm-up"))

    def next_ask() -> Ask | None:
        left[0] -= 1
        return next(asks) if left[0] >= 0 else None

    async def note(account: Account) -> None:
        """Take none."""

    await asyncio.gather(*(work_off(session, next_ask, note) for _ in range(2 * options.sequences)))


async def _wait(clients: list[Coroutine[None, None, None]], load: Load) -> str | None:
    """Wait for all clients; return what is wrong if nothing was answered for long."""
    pending = {asyncio.create_task(client) for client in clients}
    answered = -1
    while pending:
        done, pending = await asyncio.wait(pending, timeout=PATIENCE_SECONDS)
        for client in done:
            client.result()
        if not done and load.ended == answered:
            for client in pending:
                client.cancel()
            return f"nothing was answered for {PATIENCE_SECONDS:g} s; {len(pending)} clients still wait"
        answered = load.ended
    return None


async def _kill(
    house: House,
    session: aiohttp.ClientSession,
    load: Load,
    options: Options,
    tell: Tell,
) -> int:
    """Kill the engine in the midst of each of so many equal shares of the requests; return how often."""
    rng = random.Random(f"{options.seed}/kills")
    for number in range(options.kills):
        share = (number + rng.uniform(0.1, 0.9)) / options.kills
        await load.until_ended(share * options.requests)
        await until_ready(house, session)
        tell(f"{load.ended} of {options.requests} requests have ended; the engine is killed")
        house.kill_engine()
    return options.kills


async def _sample(house: House, outcome: Outcome, seconds: float) -> None:
    began = time.monotonic()
    while True:
        with suppress(OSError):  # the engine has just been killed
            if (engine := house.engine_pid) is not None:
                sample = memory(house.daemon_pid), memory(engine)
                outcome.samples.append((time.monotonic() - began, *sample))
        await asyncio.sleep(seconds)


def _footprints(house: House) -> tuple[Footprint, Footprint]:
    engine = house.engine_pid
    assert engine is not None
    return footprint(house.daemon_pid), footprint(engine)


async def _settled(house: House, before: tuple[Footprint, Footprint]) -> tuple[Footprint, Footprint]:
    """Return what both processes hold once they have closed what is being closed, or after a while."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        now = _footprints(house)
        too_many = any(n.descriptors > b.descriptors for n, b in zip(now, before, strict=True))
        if not too_many or time.monotonic() > end:
            return now
        await asyncio.sleep(POLL_SECONDS)


async def _aftermath(
    house: House, session: aiohttp.ClientSession, options: Options, before: tuple[Footprint, Footprint]
) -> list[str]:
    """Return what is not as it was before the load."""
    await until_ready(house, session)
    faults = await _use_all_sequences(session, options)
    # After each of these the engine, at rest, compares its cells with its books, and ends if they differ.
    pid = house.engine_pid
    for _ in range(2):
        async with session.post("/v1/tokenize", json={"content": "Are you well?"}) as response:
            if response.status != 200:
                faults.append(f"the engine's check of its cells: {await response.text()}")
    if house.engine_pid != pid:
        faults.append("the engine found its cells not to be what its books say, and has ended")
    now = await status(session)
    hands = {name: now["requests"][name] for name in ("queued", "running", "put_back")}
    if any(hands.values()):
        faults.append(f"all requests have ended, and the status tells {hands}")
    daemon, engine = await _settled(house, before)
    return [
        *faults,
        *compare("the daemon", before[0], daemon),
        *compare("the engine", before[1], engine, allowed_bytes=now["engine"]["prefix_cache"]["bytes"]),
    ]


async def _use_all_sequences(session: aiohttp.ClientSession, options: Options) -> list[str]:
    """See that as many requests as ever can run at once: no sequence is lost."""
    fields = {
        "prompt": "x",
        "max_tokens": CAPACITY_TOKENS,
        "stream": True,
        "logit_bias": {"2": -100},
    }
    asks = [
        Ask(f"capacity-{number}", "/v1/completions", fields, "reads", 0)
        for number in range(2 * options.sequences)
    ]
    answers = asyncio.gather(*(ask(session, what) for what in asks))
    most = 0
    while not answers.done():
        most = max(most, (await status(session))["requests"]["running"])
        await asyncio.sleep(0)
    faults = [f"{a.ask.id}: ended by {a.ends}" for a in await answers if a.ends not in (["length"], ["stop"])]
    if most != options.sequences:
        faults.append(f"{most} requests ran at once; {options.sequences} can")
    return faults
