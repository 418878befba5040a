"""A process that is killed while it writes: what it was told is kept is there, each time."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edged.clock import Clock
from edged.core.journal import Journal, Recovered
from tests.core.journal.conftest import Bounds

pytestmark = pytest.mark.slow

ROUNDS = 8

WRITER = """
import asyncio, json, random, sys
from pathlib import Path
from edged.clock import Clock
from edged.core.journal import Journal, RecordKey
from edged.settings.schema import JournalTable

def tell(*fact):
    print(json.dumps(fact), flush=True)

async def requester(journal, run, number, chance):
    while True:
        key = RecordKey("mqtt", f"client-{number}", f"{run}-{chance.randrange(10**9)}")
        body = f"question of {key.id} " * chance.randrange(1, 60)
        ask = await journal.accept(key, b"h" * 16, body.encode())
        tell("there", ask, body)
        if chance.random() < 0.8:
            body = f"answer to {key.id} " * chance.randrange(1, 120)
            answer = await journal.answer(ask, key, b"h" * 16, body.encode())
            tell("there", answer, body)
            tell("gone", ask, "")
            if chance.random() < 0.5:
                journal.acknowledged(answer)
        if chance.random() < 0.05:
            tell("there", await journal.event(key.id.encode()), key.id)

async def main():
    chance = random.Random(int(sys.argv[2]))
    journal = Journal(Path(sys.argv[1]), settings=JournalTable(), clock=Clock())
    recovered = await journal.open()
    tell("open", len(recovered.losses), "")
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(requester(journal, recovered.run, number, chance))

asyncio.run(main())
"""


async def recover(directory: Path) -> Recovered:
    journal = Journal(directory, settings=Bounds(), clock=Clock())
    recovered = await journal.open()
    await journal.close()
    return recovered


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    chance = random.Random(4)
    told: dict[int, str] = {}
    gone: set[int] = set()
    for seed in range(ROUNDS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, str(seed)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == ["open", 0, ""]
        killer = threading.Timer(chance.uniform(0, 0.4), process.send_signal, [signal.SIGKILL])
        killer.start()
        for line in process.stdout:
            if line.endswith("\n"):
                what, serial, body = json.loads(line)
                if what == "there":
                    told[serial] = body
                else:
                    gone.add(serial)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
    recovered = asyncio.run(recover(tmp_path))
    assert recovered.losses == []
    assert recovered.run == ROUNDS + 1
    found = {r.serial: r.body.decode() for r in [*recovered.asks, *recovered.answers, *recovered.events]}
    answered = {record.key for record in recovered.answers}
    assert not [record for record in recovered.asks if record.key in answered]
    assert len(told) > 10
    missing = set(told) - gone - set(found)
    # An answer that was committed and not told of has taken its request's place.
    assert {s for s in missing if told[s].startswith("answer")} == set()
    questions = {told[s].split()[2] for s in missing if told[s].startswith("question")}
    assert questions <= {key.id for key in answered if key}
    assert {s: body for s, body in found.items() if s in told and told[s] != body} == {}
