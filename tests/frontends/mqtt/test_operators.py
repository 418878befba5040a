"""Commands over MQTT: those that are allowed, once a transaction, and never a retained one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from edged.core.commands import Commands
from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.link import Link
from edged.frontends.mqtt.message import Message
from edged.frontends.mqtt.operators import MAX_BYTES, Operators
from edged.frontends.mqtt.topics import Topics
from tests.frontends.mqtt.bench import BASE, Acks, Bench, daemon


class FakeCommands:
    """Notes what is carried out; the real ones are in tests/core."""

    def __init__(self) -> None:
        self.run_with: list[tuple[str, dict[str, Any]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        self.run_with.append((name, dict(fields)))
        await self.gate.wait()
        if fields.get("fail"):
            raise EdgedError(ErrorCode.INVALID, "no such thing", param="fail")
        return {"count": len(self.run_with)}


class Operator:
    """One operator who publishes commands."""

    def __init__(self, bench: Bench) -> None:
        self.commands = FakeCommands()
        self.line = bench.line
        self._operators = Operators(
            core=bench.core,
            commands=cast(Commands, self.commands),
            link=cast(Link, bench.line),
            topics=Topics("edged", "d"),
            table=lambda: bench.core.settings.mqtt,
        )

    async def command(self, name: str, payload: bytes = b"", acks: Acks | None = None, **fields: Any) -> None:
        acknowledge = (acks or Acks()).add
        message = Message(f"{BASE}cmd/{name}", payload, _acknowledge=acknowledge, **fields)
        await self._operators.command(message, name)

    @property
    def unanswerable(self) -> int:
        return self._operators.unanswerable

    @property
    def results(self) -> list[tuple[str, dict[str, Any]]]:
        return [(p.topic.removeprefix(BASE), json.loads(p.payload)) for p in self.line.sent]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with daemon(tmp_path) as bench:
        yield bench


@pytest.fixture
def operator(bench: Bench) -> Operator:
    return Operator(bench)


async def test_a_command_gets_its_result_with_its_transaction(operator: Operator) -> None:
    await operator.command("requests", b'{"transaction":"t1","page":2}')
    assert operator.commands.run_with == [("requests", {"page": 2})]
    assert operator.results == [
        ("cmd/requests/result", {"status": "ok", "data": {"count": 1}, "error": None, "transaction": "t1"})
    ]
    assert not operator.line.sent[0].retain


async def test_an_empty_payload_is_a_command_too(operator: Operator) -> None:
    await operator.command("health_check")
    assert operator.results[0][1]["status"] == "ok"


async def test_a_command_is_acknowledged_before_it_is_carried_out(operator: Operator) -> None:
    """One that takes the daemon down must not be delivered again and again."""
    operator.commands.gate.clear()
    acks = Acks()
    command = asyncio.create_task(operator.command("requests", acks=acks))
    await acks.wait()
    assert operator.results == []
    operator.commands.gate.set()
    await command


async def test_a_repeat_of_a_transaction_is_not_carried_out_again(operator: Operator) -> None:
    for _ in range(2):
        await operator.command("requests", b'{"transaction":7}')
    await operator.command("cancel_all", b'{"transaction":7}')
    assert [name for name, _ in operator.commands.run_with] == ["requests", "cancel_all"]
    assert operator.results[0] == operator.results[1]


async def test_a_repeat_waits_for_the_first_one_of_its_transaction(operator: Operator) -> None:
    """Of others, and of commands without one, nobody knows whether they are the same."""
    operator.commands.gate.clear()
    payloads = [b'{"transaction":7}', b'{"transaction":7}', b'{"transaction":"7"}', b"", b""]
    commands = [asyncio.create_task(operator.command("requests", payload)) for payload in payloads]
    async with asyncio.timeout(20):
        while len(operator.commands.run_with) < 4:
            await asyncio.sleep(0)
    operator.commands.gate.set()
    await asyncio.gather(*commands)
    assert len(operator.commands.run_with) == 4
    told = [result for _, result in operator.results]
    assert len(told) == 5
    first, repeat = (result for result in told if result["transaction"] == 7)
    assert first == repeat


async def test_what_is_not_allowed_is_refused_with_what_is(operator: Operator) -> None:
    await operator.command("restart_engine", b'{"transaction":"t"}')
    [(topic, result)] = operator.results
    assert (topic, result["status"], result["error"]["code"]) == (
        "cmd/restart_engine/result",
        "error",
        "not_allowed",
    )
    assert "health_check" in result["error"]["message"]
    assert operator.commands.run_with == []


@pytest.mark.parametrize("payload", [b"\xff", b"[]", b"{", b'{"transaction":[]}', b"x" * (MAX_BYTES + 1)])
async def test_nonsense_is_answered_with_an_error(operator: Operator, payload: bytes) -> None:
    await operator.command("requests", payload)
    assert operator.results[0][1]["status"] == "error"
    assert operator.commands.run_with == []


async def test_a_commands_own_refusal_is_its_result(operator: Operator) -> None:
    await operator.command("requests", b'{"fail":true}')
    assert operator.results[0][1]["error"] == {"code": "invalid", "message": "no such thing", "param": "fail"}


async def test_a_retained_command_is_dropped_with_an_event(operator: Operator, bench: Bench) -> None:
    await operator.command("requests", retain=True)
    assert ([e.type for e in bench.events], operator.commands.run_with) == (["retained_command"], [])


async def test_a_strange_name_is_no_topic_of_ours(operator: Operator) -> None:
    await operator.command("Weird Name")
    assert (operator.results, operator.unanswerable) == ([], 1)
