"""mqtt watch and mqtt forget at a real broker."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.mqtt_device import Device
from tests.cli.mqtt_servers import broker_of_3_1_1

if TYPE_CHECKING:
    from pathlib import Path

    from tests.brokers import MakeMosquitto, Mosquitto
    from tests.cli.conftest import MakeDevice, Run, Start, Terminal


def watching(start: Start, broker: Mosquitto, device: Device, *more: str) -> subprocess.Popen[bytes]:
    """Start watching a device, and return once its retained status has been seen."""
    device.publish("status", json.dumps({"state": "online", "phase": "ready", "reason": None}), retain=True)
    process = start("mqtt", "watch", "--broker", broker.url, "--device", device.id, *more)
    assert process.stdout
    assert b"online" in process.stdout.readline()
    return process


def lines(process: subprocess.Popen[bytes], count: int) -> list[str]:
    """Return the next lines without their time of day."""
    assert process.stdout
    read = [process.stdout.readline().decode() for _ in range(count)]
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d ", line) for line in read), read
    return [line.rstrip("\n")[11:] for line in read]


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert process.stderr
    assert process.stderr.read() == b""


def test_the_traffic_is_readable(start: Start, edgectl: Run, broker: Mosquitto, device: Device) -> None:
    process = watching(start, broker, device)

    named = ("--broker", broker.url, "--device", device.id, "--client", "alice", "--id", "job-12345678")
    edgectl("mqtt", "ask", *named, "Who\nare you?\x1b[31m")
    device.publish("alarm/low_memory", "", retain=True)
    device.publish("telemetry/thermal", '{"soc_celsius":61.5}')
    device.publish("ask", "open \u202equestion")
    device.publish("cmd/reload", '{"transaction":"t1"}')
    device.publish("cmd/reload/result", '{"status":"ok","data":{},"error":null,"transaction":"t1"}')
    device.publish("cancel/bob", '{"id":"job-2"}')
    device.reply("bob", "job-2", {"type": "error", "code": "busy", "message": "64 of 64"})
    device.reply("bob", "job-2", {"type": "accepted", "queue_position": 3, "attempt": 2})
    device.publish("reply/bob/job-3", b"\xff\xfe")

    at = f"{device.id:<15}"
    assert lines(process, 14) == [
        f"{at} → ask      alice job-1234 Who\\nare you?\\x1b[31m",
        f"{at} ← accepted alice job-1234 runs",
        f"{at} ← chunk    alice job-1234 Hel",
        f"{at} ← chunk    alice job-1234 lo.",
        f"{at} ← done     alice job-1234 (stop) Hello.",
        f"{at} ← alarm/low_memory cleared",
        f'{at} ← telemetry/thermal {{"soc_celsius":61.5}}',
        f"{at} → ask      open \\u202equestion",
        f'{at} → cmd/reload {{"transaction":"t1"}}',
        f"{at} ← cmd/reload/result ok",
        f"{at} → cancel   bob job-2",
        f"{at} ← error    bob job-2 busy: 64 of 64",
        f"{at} ← accepted bob job-2 3 before it, attempt 2",
        f"{at} ← reply    bob job-3 \\xff\\xfe",
    ]
    end(process)


def test_what_a_device_says_of_itself_is_readable(start: Start, broker: Mosquitto, device: Device) -> None:
    process = watching(start, broker, device)
    model = {"name": "smollm2", "sequences": 8, "context": 4096, "license": "apache-2.0"}
    host = {"machine": "aarch64", "kernel": "6.12", "cores": 4, "memory_bytes": 8_200_000_000}
    info = {"version": "0.1.0", "model": model, "host": host, "capabilities": {"pool": "kitchen"}}
    device.publish("info", json.dumps(info))
    health = {
        "phase": "degraded",
        "uptime_seconds": 3725.4,
        "requests": {"running": 2, "queued": 1, "done_total": 115, "failed_total": 0},
        "speed": {"tokens_per_second": 61.7},
        "memory": {"engine_bytes": 210_000_000, "available_bytes": 1_500_000_000},
        "engine_restarts": 3,
        "journal": {"problem": "no space left"},
    }
    device.publish("health", json.dumps(health))
    nothing_yet = {"phase": "starting", "speed": {"tokens_per_second": None}, "memory": None}
    device.publish("health", json.dumps(nothing_yet))
    device.publish("alarm/low_memory", json.dumps({"type": "low_memory", "time": "2026-11-21T14:00:00Z"}))
    device.publish("info", json.dumps({"model": None}))
    # Anybody's who may publish there.
    device.publish("health", '{"phase":7,"requests":[1],"speed":{"tokens_per_second":1e999},"memory":"x"}')

    at = f"{device.id:<15}"
    assert lines(process, 6) == [
        f"{at} ← info     edged 0.1.0; smollm2, 8 × 4096 tokens; aarch64, 4 cores, 8.20 GB; pool kitchen",
        f"{at} ← health   degraded, up 1 h 2 min; 2 running, 1 queued, 115 done, 0 failed; 62 tokens/s; "
        "engine 210.0 MB, available 1.50 GB; the engine was restarted 3 times; journal: no space left",
        f"{at} ← health   starting",
        f"{at} ← alarm/low_memory since 2026-11-21T14:00:00Z",
        f"{at} ← info     no model",
        f'{at} ← health   {{"phase":7,"requests":[1],"speed":{{"tokens_per_second":1e999}},"memory":"x"}}',
    ]
    end(process)


def test_retained_messages_are_marked(start: Start, broker: Mosquitto, device: Device) -> None:
    device.publish("status", json.dumps({"state": "offline", "phase": "lost"}), retain=True)
    process = start("mqtt", "watch", "--broker", broker.url, "--device", device.id)

    assert lines(process, 1) == [f"{device.id:<15} ← status   (kept) offline lost"]
    end(process)


def test_raw_shows_topic_and_payload(start: Start, broker: Mosquitto, device: Device) -> None:
    process = watching(start, broker, device, "--raw")
    device.publish("cancel/bob", '{ "id": "job-2" }\n')

    assert lines(process, 1) == [f'edged/v1/{device.id}/cancel/bob {{ "id": "job-2" }}\\n']
    end(process)


def test_json_is_a_message_a_line(start: Start, broker: Mosquitto, device: Device) -> None:
    process = watching(start, broker, device, "--json")
    device.reply("bob", "job-2", {"type": "chunk", "text": "a\u009bb"})
    device.publish("ask", "plain")

    assert process.stdout
    reply, ask = (json.loads(process.stdout.readline()) for _ in range(2))
    assert reply.pop("time").startswith("20")
    assert reply == {
        "topic": f"edged/v1/{device.id}/reply/bob/job-2",
        "retained": False,
        "qos": 1,
        "device": device.id,
        "kind": "reply",
        "client": "bob",
        "id": "job-2",
        "payload": {"id": "job-2", "device_id": device.id, "type": "chunk", "text": "a\u009bb"},
    }
    assert (ask["kind"], ask["client"], ask["id"], ask["payload"]) == ("ask", None, None, "plain")
    end(process)


def test_a_terminal_gets_colours_and_lines_of_its_width(
    terminal: Terminal, broker: Mosquitto, device: Device
) -> None:
    device.publish("status", json.dumps({"state": "online", "reason": "x" * 200}), retain=True)
    named = ("mqtt", "watch", "--broker", broker.url, "--device", device.id)

    seen = terminal(*named).expect("\x1b[0m")
    assert seen.startswith("\x1b[33m")
    assert seen.endswith("xxx…\x1b[0m")
    assert len(seen) == len("\x1b[33m" + "\x1b[0m") + 100

    plain = terminal(*named, NO_COLOR="1").expect("\r\n")
    assert "\x1b" not in plain


def test_a_broker_that_comes_back_is_watched_again(
    start: Start, mosquitto: Mosquitto, make_device: MakeDevice
) -> None:
    device = make_device(port=mosquitto.port)
    process = watching(start, mosquitto, device)

    mosquitto.kill()
    mosquitto.start()
    assert process.stderr
    assert process.stderr.readline() == b"edgectl: the connection to the broker is lost: trying again\n"

    # Retained, so that it is seen however late the watcher comes.
    make_device(port=mosquitto.port, id=device.id).publish("info", '{"version":"0.1.0"}', retain=True)
    assert lines(process, 1)[0].endswith("(kept) edged 0.1.0")
    end(process)


def test_pools_have_a_name_of_their_own(start: Start, broker: Mosquitto, device: Device) -> None:
    root = f"test/{device.id}"
    process = start("mqtt", "watch", "--broker", broker.url, "--root", root)
    # Retained, so that it is seen however late the watcher comes.
    device._client.publish(f"{root}/v1/_pool/kitchen/ask/alice", "hi", qos=1, retain=True)

    assert lines(process, 1) == ["pool:kitchen    → ask      alice (kept) hi"]
    end(process)


TOPICS = ("status", "info", "health", "alarm/low_memory", "last_answer")


@pytest.fixture
def gone(device: Device) -> Device:
    """A device of which the broker keeps much, among it that it is offline."""
    for topic in TOPICS:
        device.publish(topic, '{"state":"offline"}', retain=True)
    for count in range(60):
        device.publish(f"alarm/more-{count}", "1", retain=True)
    topic = f"homeassistant/device/edged_{device.id}/config"
    device._client.publish(topic, "{}", qos=1, retain=True).wait_for_publish(20)
    return device


@pytest.mark.slow
def test_forget_removes_all_that_is_kept_of_one_device(
    edgectl: Run, broker: Mosquitto, gone: Device, make_device: MakeDevice
) -> None:
    other = make_device()
    other.publish("status", '{"state":"offline"}', retain=True)

    result = edgectl("mqtt", "forget", gone.id, "--broker", broker.url)

    kept = [*(f"edged/v1/{gone.id}/{topic}" for topic in TOPICS)]
    kept += [f"edged/v1/{gone.id}/alarm/more-{count}" for count in range(60)]
    kept += [f"homeassistant/device/edged_{gone.id}/config"]
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().splitlines() == [f"removed {topic}" for topic in sorted(kept)]

    again = edgectl("mqtt", "forget", gone.id, "--broker", broker.url, "--json")
    assert json.loads(again.stdout) == {"device": gone.id, "removed": []}
    other_one = edgectl("mqtt", "forget", other.id, "--broker", broker.url, "--json")
    assert json.loads(other_one.stdout)["removed"] == [f"edged/v1/{other.id}/status"]


def test_forget_refuses_a_device_that_is_online(edgectl: Run, broker: Mosquitto, gone: Device) -> None:
    gone.publish("status", '{"state":"online"}', retain=True)
    named = ("mqtt", "forget", gone.id, "--broker", broker.url)

    refused = edgectl(*named)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode() == (
        f"edgectl: {gone.id} is online and would publish its topics again (stop it first, or --force)\n"
    )

    forced = edgectl(*named, "--force")
    assert (forced.returncode, len(forced.stdout.splitlines())) == (0, 66)


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_forget_says_what_the_broker_does_not_let_it_remove(
    edgectl: Run, make_mosquitto: MakeMosquitto, make_device: MakeDevice, tmp_path: Path, version: str
) -> None:
    """MQTT 5 says so, 3.1.1 does not: there it is seen when it is looked for again."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite #\n\nuser alice\ntopic read #\ntopic write edged/v1/+/info\n")
    broker = make_mosquitto(config=f"allow_anonymous true\nacl_file {rules}")
    device = make_device(port=broker.port)
    for topic in ("info", "status"):
        device.publish(topic, '{"state":"offline"}', retain=True)
    named = ("mqtt", "forget", device.id, "--username", "alice", "--broker")

    if version == "5":
        result = edgectl(*named, broker.url)
    else:
        with broker_of_3_1_1(broker.port, b"") as (port, _):
            result = edgectl(*named, f"mqtt://127.0.0.1:{port}")

    status = f"edged/v1/{device.id}/status"
    says = {
        "5": f"the broker does not let alice publish on {status}",
        "3.1.1": f"{status} is still there",
    }
    assert (result.returncode, result.stdout) == (4, b"")
    assert result.stderr.decode().startswith(f"edgectl: {says[version]} (")
