"""mqtt ask through a real broker, to scripted devices."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.brokers import Mosquitto
    from tests.cli.conftest import MakeDevice, Run, Start, Terminal
    from tests.cli.mqtt_device import Ask, Device


@pytest.fixture
def ask(edgectl: Run, broker: Mosquitto, device: Device) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Return a function that asks the device through the shared broker as alice."""

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        named = ("mqtt", "ask", "--broker", broker.url, "--client", "alice", "--device", device.id)
        return edgectl(*named, *arguments, **more)

    return run


QUICK_REPEATS = """
import sys
from edged.cli import mqtt_ask
from edged.cli.main import main
mqtt_ask.FIRST_REPEAT_SECONDS = 0.1
sys.exit(main())
"""
QUICK = (sys.executable, "-c", QUICK_REPEATS)


def test_the_answer_alone_is_on_stdout(ask: Any, device: Device) -> None:
    result = ask("Who", "are you?", stdin=b"piped\n")

    assert (result.returncode, result.stdout, result.stderr) == (0, b"Hello.\n", b"")
    [asked] = device.asks
    assert asked.topic == f"edged/v1/{device.id}/ask/alice"
    assert asked.fields == {"id": str(uuid.UUID(asked.id)), "prompt": "Who are you?\n\npiped"}
    assert asked.expiry_seconds
    assert 590 <= asked.expiry_seconds <= 601


def test_options_become_fields_of_the_request(ask: Any, device: Device) -> None:
    ask(
        *("x", "--system", "Be brief.", "--session", "s1", "--max-tokens", "9", "--temperature", "0"),
        *("--top-p", "0.5", "--top-k", "3", "--seed", "7", "--stop", "A", "--stop", "B"),
        *("--priority", "high", "--ttl", "30", "--id", "job:1", "--no-stream"),
    )

    [asked] = device.asks
    assert asked.fields == {
        "id": "job:1",
        "prompt": "x",
        "stream": False,
        "system": "Be brief.",
        "session": "s1",
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 7,
        "stop": ["A", "B"],
        "priority": "high",
        "ttl_s": 30.0,
    }
    assert asked.expiry_seconds
    assert 25 <= asked.expiry_seconds <= 31


def test_chunks_are_printed_as_they_come_in_order_and_once(
    start: Start, broker: Mosquitto, device: Device
) -> None:
    def script(ask: Ask) -> None:
        ask.frame("accepted", 0, queue_position=0)
        ask.frame("chunk", 2, text="second ")
        ask.frame("chunk", 1, text="first ")
        ask.frame("chunk", 2, text="second ")

    device.script = script
    process = start("mqtt", "ask", "--broker", broker.url, "--device", device.id, "x")
    assert process.stdout
    assert process.stdout.read(13) == b"first second "
    device.asks[0].frame("done", 3, finish_reason="stop", text="first second third")
    assert process.stdout.read() == b"third\n"
    assert process.wait(20) == 0


def test_no_stream_prints_the_text_of_the_end_alone(ask: Any, device: Device) -> None:
    def script(ask: Ask) -> None:
        ask.frame("accepted", 0, queue_position=0)
        ask.frame("done", 1, finish_reason="stop", text="whole\n")

    device.script = script

    assert ask("x", "--no-stream").stdout == b"whole\n"


def test_json_is_a_frame_a_line(ask: Any, device: Device) -> None:
    result = ask("x", "--json")

    frames = [json.loads(line) for line in result.stdout.splitlines()]
    assert [frame["type"] for frame in frames] == ["accepted", "chunk", "chunk", "done"]
    assert {frame["device_id"] for frame in frames} == {device.id}


def test_a_new_attempt_goes_on_where_the_text_was(ask: Any, device: Device) -> None:
    def script(ask: Ask) -> None:
        ask.chunks("one ", "two ")
        ask.answer("one ", "two ", "three", attempt=2)
        ask.frame("chunk", 3, attempt=1, text="late")

    device.script = script

    result = ask("x")

    assert (result.returncode, result.stdout, result.stderr) == (0, b"one two three\n", b"")


def test_a_person_is_told_of_a_new_attempt(terminal: Terminal, broker: Mosquitto, device: Device) -> None:
    def script(ask: Ask) -> None:
        ask.chunks("one ")
        ask.answer("one ", "two", attempt=2)

    device.script = script

    person = terminal("mqtt", "ask", "--broker", broker.url, "--device", device.id, "x")

    assert person.end() == 0
    assert f"({device.id} has begun anew)" in person.screen()
    assert "two" in person.screen()


def test_a_new_attempt_with_another_answer_voids_the_old_one(ask: Any, device: Device) -> None:
    def script(ask: Ask) -> None:
        ask.chunks("one ", "two ")
        ask.answer("one ", "three ", "four", attempt=2)

    device.script = script

    result = ask("x")

    assert (result.returncode, result.stdout) == (0, b"one two \none three four\n")
    assert result.stderr == (
        b"edgectl: the answer was begun anew and differs: what stands above is void, the whole follows\n"
    )


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("invalid", 1), ("not_allowed", 4), ("busy", 5), ("too_hot", 5), ("journal_full", 1), ("expired", 1)],
)
def test_an_error_is_one_line_and_the_exit_code_of_ask(
    ask: Any, device: Device, code: str, exit_code: int
) -> None:
    def script(ask: Ask) -> None:
        ask.frame("error", 0, code=code, message="64 of 64\nwait", retry_after_s=12.4)

    device.script = script

    result = ask("x")
    assert (result.returncode, result.stdout) == (exit_code, b"")
    assert result.stderr.decode() == f"edgectl: {code}: 64 of 64 wait (retry in 12 s)\n"

    *_, last = ask("x", "--json").stdout.splitlines()
    assert json.loads(last)["error"]["code"] == code


def test_the_question_is_repeated_under_its_id_until_it_is_answered(
    broker: Mosquitto, device: Device, environ: dict[str, str]
) -> None:
    def script(ask: Ask) -> None:
        if ask.number == 3:
            ask.answer("at last")

    device.script = script

    result = subprocess.run(
        [*QUICK, "mqtt", "ask", "x", "--broker", broker.url, "--device", device.id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environ,
        check=False,
        timeout=20,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, b"at last\n", b"")
    assert len(device.asks) >= 3
    assert [ask.fields for ask in device.asks] == [device.asks[0].fields] * len(device.asks)


def test_a_broker_that_goes_away_is_waited_for_and_asked_anew(
    start: Start, mosquitto: Mosquitto, make_device: MakeDevice
) -> None:
    begun = threading.Event()

    def script(ask: Ask) -> None:
        if ask.number == 1:
            ask.chunks("one ")
            begun.set()
        else:
            ask.frame("done", 2, finish_reason="stop", text="one two")

    device = make_device(port=mosquitto.port, script=script)
    process = start("mqtt", "ask", "--broker", mosquitto.url, "--device", device.id, "x")
    assert process.stdout
    assert process.stdout.read(4) == b"one "

    mosquitto.kill()
    mosquitto.start()

    assert process.stdout.read() == b"two\n"
    assert process.wait(20) == 0
    assert len({ask.id for ask in device.asks}) == 1


@pytest.mark.parametrize("whole", [(), ("--no-stream",)])
def test_interrupt_cancels_on_the_device(
    start: Start, broker: Mosquitto, device: Device, whole: tuple[str, ...]
) -> None:
    asked = threading.Event()

    def script(ask: Ask) -> None:
        ask.chunks("so far")
        asked.set()

    device.script = script
    process = start(
        "mqtt", "ask", "--broker", broker.url, "--client", "bob", "--device", device.id, "x", *whole
    )
    assert asked.wait(20)
    assert process.stdout
    if not whole:
        assert process.stdout.read(6) == b"so far"

    process.send_signal(signal.SIGINT)

    assert device.cancelled.get(timeout=20) == ("bob", device.asks[0].id)
    assert process.wait(20) == 130
    assert process.stderr
    assert (process.stdout.read(), process.stderr.read()) == (b"" if whole else b"\n", b"")


def test_a_closed_pipe_cancels_on_the_device(start: Start, broker: Mosquitto, device: Device) -> None:
    def script(ask: Ask) -> None:
        ask.chunks("line\n")

    device.script = script
    process = start("mqtt", "ask", "--broker", broker.url, "--device", device.id, "x")
    assert process.stdout
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    device.asks[0].frame("chunk", 2, text="more\n")

    assert device.cancelled.get(timeout=20)[1] == device.asks[0].id
    assert process.wait(20) == 141


def test_an_answer_cancelled_elsewhere_is_a_failure(ask: Any, device: Device) -> None:
    device.script = lambda ask: ask.answer("so far", reason="cancelled")

    result = ask("x")

    assert (result.returncode, result.stdout) == (1, b"so far\n")
    assert b"cancelled elsewhere" in result.stderr


def test_timeout_gives_up_cancels_and_says_what_is_known(ask: Any, device: Device) -> None:
    device.script = lambda ask: None

    result = ask("x", "--timeout", "2")

    assert result.returncode == 1
    assert result.stderr.decode() == (
        f"edgectl: {device.id} did not answer in time, so the request was given up;"
        " the broker knows no device of that name\n"
    )
    assert device.cancelled.get(timeout=20) == ("alice", device.asks[0].id)


def test_an_offline_device_is_told_at_once_and_waited_for(
    start: Start, broker: Mosquitto, device: Device
) -> None:
    status = {"state": "offline", "phase": "stopped", "time": "2026-11-21T14:00:00.123Z", "reason": "update"}
    device.publish("status", json.dumps({**status, "clock_synchronised": False}), retain=True)
    waits = threading.Event()
    device.script = lambda ask: waits.set()
    process = start("mqtt", "ask", "--broker", broker.url, "--device", device.id, "x")
    assert process.stdout
    assert process.stderr

    assert process.stderr.readline().decode() == (
        f"edgectl: {device.id} is offline since 2026-11-21T14:00:00.123Z by its clock, which was not set"
        " (update); the broker keeps the question\n"
    )
    assert waits.wait(20)
    device.publish("status", json.dumps({"state": "online"}), retain=True)
    device.asks[0].answer("here I am")
    assert process.stdout.read() == b"here I am\n"
    assert process.wait(20) == 0


def test_a_device_that_died_without_a_word(ask: Any, device: Device) -> None:
    status = {"state": "offline", "phase": "lost", "time": "2026-11-21T14:00:00Z", "clock_synchronised": True}
    device.publish("status", json.dumps(status), retain=True)
    device.script = lambda ask: None

    first, second = ask("x", "--timeout", "2").stderr.decode().splitlines()

    assert first == (
        f"edgectl: {device.id} is offline: cut off some time after it connected at 2026-11-21T14:00:00Z;"
        " the broker keeps the question"
    )
    assert second.endswith("given up; it is offline")


def test_a_question_that_nobody_began_in_time(
    broker: Mosquitto, device: Device, environ: dict[str, str]
) -> None:
    device.script = lambda ask: None

    result = subprocess.run(
        [*QUICK, "mqtt", "ask", "x", "--ttl", "0.5", "--broker", broker.url, "--device", device.id],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environ,
        check=False,
        timeout=20,
    )

    assert result.returncode == 1
    assert result.stderr == b"edgectl: expired: nobody began to answer within 0.5 s\n"


def test_the_first_of_a_pool_to_end_answers(edgectl: Run, broker: Mosquitto, make_device: MakeDevice) -> None:
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    both = threading.Barrier(2, timeout=20)

    def slow(ask: Ask) -> None:
        ask.chunks("The sky")
        both.wait()

    def fast(ask: Ask) -> None:
        both.wait()
        ask.answer("The sky is blue.")

    make_device(pool=pool, script=slow)
    quicker = make_device(pool=pool, script=fast)

    result = edgectl("mqtt", "ask", "--broker", broker.url, "--pool", pool, "--client", "alice", "why?")

    assert (result.returncode, result.stdout) == (0, b"The sky is blue.\n")
    assert quicker.asks[0].topic == f"edged/v1/_pool/{pool}/ask/alice"


def test_start_up_loads_nothing_heavy_and_paho_only_where_it_is_needed(
    broker: Mosquitto, device: Device, environ: dict[str, str]
) -> None:
    program = "import sys; from edged.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"

    def loaded(*arguments: str) -> set[str]:
        result = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environ,
            check=True,
        )
        return set(result.stdout.decode().splitlines()[-1].split())

    asked = loaded("mqtt", "ask", "--broker", broker.url, "--device", device.id, "x")
    assert "paho.mqtt.client" in asked
    assert {"pydantic", "structlog", "aiohttp", "asyncio"} & asked == set()
    assert "paho" not in loaded("status", "--socket", "/nowhere")


def test_wrong_usage_sends_nothing(edgectl: Run, broker: Mosquitto, tmp_path: Path) -> None:
    named = ("mqtt", "ask", "--broker", broker.url)
    for arguments, says in [
        ((*named, "x"), "--device --pool"),
        ((*named, "--device", "Kitchen", "x"), "a-z 0-9"),
        ((*named, "--device", "kitchen", "--pool", "p", "x"), "not allowed with"),
        ((*named, "--device", "kitchen", "--client", "a/b", "x"), "--client"),
        ((*named, "--device", "kitchen", "--root", "a/+", "x"), "--root"),
        ((*named, "--device", "kitchen", "--username", "a b", "x"), "--client"),
        ((*named, "--device", "kitchen", "--password-file", "p", "x"), "--username"),
        (("mqtt", "ask", "--device", "kitchen", "x"), "no broker is known (--broker mqtt://HOST"),
        (("mqtt", "watch", "--broker", "mqtt://me:secret@host"), "no user or password in it"),
        (("mqtt", "watch", "--broker", "http://host"), "mqtt://HOST[:PORT], with TLS mqtts://HOST"),
        (("mqtt", "watch", "--broker", "mqtt://host:99999"), "mqtt://HOST[:PORT]"),
        (("mqtt", "forget"), "ID"),
    ]:
        result = edgectl(*arguments)
        assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (2, b"", 1), arguments
        assert says in result.stderr.decode()
        assert b"secret" not in result.stderr


@pytest.mark.slow
def test_a_name_that_nobody_has_is_told_and_waited_for(
    start: Start, broker: Mosquitto, make_device: MakeDevice
) -> None:
    name = f"late-{uuid.uuid4().hex[:8]}"
    process = start("mqtt", "ask", "--broker", broker.url, "--client", "alice", "--device", name, "x")
    assert process.stderr
    assert process.stdout

    assert process.stderr.readline().decode() == (
        f"edgectl: nobody listens on edged/v1/{name}/ask/alice yet: is the name right?\n"
    )
    make_device(id=name)
    assert process.stdout.read() == b"Hello.\n"
    assert process.wait(20) == 0
