"""The examples of tools/examples ask a device over MQTT 3.1.1 and end with the whole text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.devices import AnsweringDevice, Mood

EXAMPLES = Path(__file__).resolve().parents[2] / "tools/examples"
PROMPT = 'Say "hello"\nin C:\\ – 日本'
COMMANDS = {
    "paho": [sys.executable, str(EXAMPLES / "ask_mqtt.py")],
    "mosquitto": ["sh", str(EXAMPLES / "ask_mqtt.sh")],
}

MakeDevice = Callable[[Mood], AnsweringDevice]


@pytest.fixture(params=sorted(COMMANDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    return COMMANDS[request.param]


def ask(command: list[str], device: AnsweringDevice, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, device.device_id, PROMPT],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **device.environ, **environ},
    )


def test_answer_is_printed(command: list[str], answering_device: AnsweringDevice) -> None:
    done = ask(command, answering_device)

    assert (done.returncode, done.stdout) == (0, f"{answering_device.text}\n"), done.stderr


def test_answer_comes_through_the_shipped_access_list(
    command: list[str], guarded_device: AnsweringDevice
) -> None:
    done = ask(command, guarded_device)

    assert (done.returncode, done.stdout) == (0, f"{guarded_device.text}\n"), done.stderr


def test_prompt_arrives_as_it_is(command: list[str], make_device: MakeDevice) -> None:
    device = make_device("ready")
    ask(command, device)

    [body] = device.asks
    assert json.loads(body)["prompt"] == PROMPT


def test_ask_is_repeated_with_the_same_bytes_until_the_answer_comes(
    command: list[str], make_device: MakeDevice
) -> None:
    device = make_device("deaf_at_first")
    done = ask(command, device, MQTT_REPEAT_SECONDS="1")

    assert done.stdout == f"{device.text}\n"
    assert len(device.asks) >= 2
    assert len(set(device.asks)) == 1


@pytest.mark.parametrize("mood", ["restarted", "chunk_lost"])
def test_text_of_the_last_frame_counts_whichever_chunks_came(
    command: list[str], make_device: MakeDevice, mood: Mood
) -> None:
    device = make_device(mood)

    assert ask(command, device).stdout.endswith(f"{device.text}\n")


def test_error_is_told(command: list[str], make_device: MakeDevice) -> None:
    done = ask(command, make_device("refusing"))

    assert done.returncode == 1
    assert done.stderr == "busy: 64 requests wait already: ask again later\n"


def test_refusal_of_the_broker_is_told(command: list[str], guarded_device: AnsweringDevice) -> None:
    done = ask(command, guarded_device, MQTT_PASSWORD="wrong")

    assert done.returncode != 0
    assert "not authori" in done.stderr.lower()


@pytest.mark.slow
def test_a_tls_port_spoken_to_without_tls_is_told(
    command: list[str], guarded_device: AnsweringDevice
) -> None:
    short = {"MQTT_REPEAT_SECONDS": "0.1", "MQTT_CONNECT_SECONDS": "1", "MQTT_CA": ""}
    with subprocess.Popen(
        [*command, guarded_device.device_id, PROMPT],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **guarded_device.environ, **short},
    ) as asking:
        assert asking.stderr is not None
        assert any("a TLS port wants MQTT_CA" in line for line in asking.stderr)
        asking.terminate()


def test_without_jq_the_frames_are_printed(answering_device: AnsweringDevice, tmp_path: Path) -> None:
    for directory in os.get_exec_path():
        for program in Path(directory).glob("*"):
            link = tmp_path / program.name
            if program.name != "jq" and not link.exists():
                link.symlink_to(program)
    done = ask(COMMANDS["mosquitto"], answering_device, PATH=str(tmp_path))

    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert frames[0]["type"] == "accepted"
    assert frames[-1]["text"] == answering_device.text
    assert done.returncode == 0
