"""Take memory from a real daemon's machine to the edge, step by step and at once, and give it back.

    python -m tools.memory_pressure MODEL.gguf CHART.png

The machine of 1 GB is pretended: its /proc/meminfo follows what daemon, engine and a real hog have. All the
while the daemon is asked on its socket and, by a real mosquitto, over MQTT, and for its status. Printed is
what became of it; the chart shows memory, level and answers over time. The exit code is 0 if the level went
up and down as documented, the status was answered throughout, and every prompt over MQTT was answered.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edged.watch.memory.bounds import Bounds, Level
from tests.brokers import Mosquitto
from tools.curves import Curve, Panel, draw
from tools.memory_pressure.asking import Requester, Seen, ask_for_status, ask_on_socket
from tools.memory_pressure.machine import TOTAL, Machine

CONFIG = """
device_id = "hog"
state_dir = "{directory}"
runtime_dir = "{directory}"
[model]
path = "{model}"
context = 2048
sequences = 4
[limits]
queue = 1000
per_client = 1000
[mqtt]
url = "{url}"
"""
MB = 1_000_000
STEP, STEP_SECONDS = 15 * MB, 3.0
EDGE_SECONDS = 10.0
CALM_SECONDS = 10.0
MOST_SECONDS = 240.0  # for what is waited for
WINDOW = 5.0  # seconds over which answers are counted


class Run:
    """One run; see above."""

    def __init__(self, machine: Machine, seen: Seen) -> None:
        self.memory: list[tuple[float, int]] = []
        self._machine = machine
        self._seen = seen
        self._taken = 0

    @property
    def level(self) -> str:
        """Return the level as the status told it last."""
        return str(self._seen.status[-1][2]["watch"]["memory"]["level"]) if self._seen.status else ""

    @property
    def mqtt(self) -> str:
        """Return the state of the connection with the broker as the status told it last."""
        return str(self._seen.status[-1][2]["mqtt"]["state"]) if self._seen.status else ""

    @property
    def engine(self) -> str:
        """Return the engine's state as the status told it last."""
        return str(self._seen.status[-1][2]["engine"]["state"]) if self._seen.status else ""

    async def note(self) -> None:
        """Take note of what is available."""
        while True:
            self.memory.append((time.monotonic(), self._machine.available))
            await asyncio.sleep(0.05)

    async def serves(self) -> None:
        """Wait until all is well."""
        await self.until(lambda: (self.engine, self.level, self.mqtt) == ("ready", "ok", "connected"))

    async def play(self) -> None:
        """Take memory and give it back."""
        edge = Bounds.of(TOTAL).evict
        await asyncio.sleep(CALM_SECONDS)
        while self.engine != "low_memory":  # step by step
            self._take(self._taken + STEP)
            await asyncio.sleep(STEP_SECONDS)
        await asyncio.sleep(EDGE_SECONDS)
        await self._recover()
        self._take(self._machine.available - edge + 10 * MB)  # at once
        await self.until(lambda: self.engine == "low_memory")
        await asyncio.sleep(EDGE_SECONDS)
        await self._recover()

    async def _recover(self) -> None:
        self._take(0)
        await self.serves()
        await asyncio.sleep(CALM_SECONDS)

    def _take(self, size: int) -> None:
        self._taken = size
        self._machine.hog.take(size)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, but not for ever."""
        async with asyncio.timeout(MOST_SECONDS):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def run(model: Path, directory: Path) -> tuple[Run, Seen]:
    """Run it all."""
    broker = Mosquitto(directory / "broker")
    broker.start()
    config = directory / "edged.toml"
    config.write_text(CONFIG.format(directory=directory, model=model.resolve(), url=broker.url))
    seen, socket = Seen(), directory / "edged.sock"
    with Machine(directory / "root") as machine, (directory / "log").open("w") as log:
        command = [sys.executable, "-m", "tools.memory_pressure.daemon", str(machine.root), str(config)]
        daemon = subprocess.Popen(command, stderr=log)  # noqa: ASYNC220
        machine.daemon = daemon.pid
        try:
            while not socket.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            requester = Requester(broker.port, "hog", seen)
            played = Run(machine, seen)
            asking = [
                asyncio.create_task(work)
                for work in (
                    played.note(),
                    ask_for_status(socket, seen),
                    ask_on_socket(socket, seen),
                )
            ]
            try:
                await played.serves()
                asking.append(asyncio.create_task(requester.ask()))
                await played.play()
                asking.pop().cancel()
                await played.until(lambda: len(seen.ended) == len(seen.asked))
            finally:
                for task in asking:
                    task.cancel()
                requester.end()
        finally:
            daemon.terminate()
            daemon.wait()
            broker.stop()
    return played, seen


def chart(path: Path, played: Run, seen: Seen) -> None:
    """Draw what is available, the level, and answers per second."""
    start = played.memory[0][0]
    end = played.memory[-1][0]

    def curve(name: str, points: Iterable[tuple[float, float]]) -> Curve:
        listed = list(points)
        return Curve(name, [(at - start) / 60 for at, _ in listed], [value for _, value in listed])

    def rate(times: Iterable[float]) -> list[tuple[float, float]]:
        listed = sorted(times)
        ticks = [start + second for second in range(int(end - start))]
        return [(tick, sum(tick - WINDOW < at <= tick for at in listed) / WINDOW) for tick in ticks]

    bounds = Bounds.of(TOTAL)
    levels = [(at, float(Level[told["watch"]["memory"]["level"].upper()])) for at, _, told in seen.status]
    draw(
        path,
        "A hog beside edged on a pretended 1 GB: step by step, then at once",
        [
            Panel(
                "MB available (line: evict)",
                [curve("", ((at, size / 1e6) for at, size in played.memory))],
                bounds.evict / 1e6,
            ),
            Panel("level: 0 ok … 3 evict", [curve("", levels)]),
            Panel(
                "each second",
                [
                    curve("answers over MQTT", rate(at for at, _ in seen.ended.values())),
                    curve("answers on the socket", rate(seen.answers)),
                    curve("refused on the socket", rate(at for at, _ in seen.refusals)),
                ],
            ),
            Panel("ms to the status", [curve("", ((at, 1000 * took) for at, took, _ in seen.status))]),
        ],
    )


def main() -> int:
    """Run, print and draw; return the exit code."""
    model, picture = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as directory:
        played, seen = asyncio.run(run(model, Path(directory)))
    levels = [told["watch"]["memory"]["level"] for _, _, told in seen.status]
    changes = [level for before, level in zip(["", *levels], levels, strict=False) if level != before]
    took = sorted(took for _, took, _ in seen.status)
    wrong = [frame for _, frame in seen.ended.values() if frame["type"] != "done"]
    waits = [at - seen.asked[id] for id, (at, _) in seen.ended.items()]
    print(f"levels: {' '.join(changes)}")
    print(f"least available: {min(size for _, size in played.memory) / 1e6:.0f} MB")
    codes = sorted({code for _, code in seen.refusals})
    median = 1000 * took[len(took) // 2]
    print(f"status: {len(took)} answers, {seen.unanswered} missing")
    print(f"milliseconds to the status: median {median:.1f}, longest {1000 * took[-1]:.0f}")
    print(f"socket: {len(seen.answers)} answers, {len(seen.refusals)} refusals {codes}")
    print(f"MQTT: {len(seen.asked)} prompts, {len(seen.ended)} ended, {len(wrong)} by an error")
    print(f"longest wait over MQTT: {max(waits):.0f} s")
    chart(picture, played, seen)
    calm = {"ok", "warn", "shed", "evict"} == set(changes) and changes[-1] == "ok"
    sound = calm and not wrong and not seen.unanswered and len(seen.ended) == len(seen.asked)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
