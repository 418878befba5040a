"""doctor: every check, its verdict and its remedy."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import edged
from edged.cli.main import main

if TYPE_CHECKING:
    from tests.cli.conftest import Run, SmallDaemon, Terminal


HEAT = {"celsius": 80.1, "target_celsius": 75.0, "threads": 2, "duty": 0.03}


@pytest.fixture
def sound(daemon: SmallDaemon) -> SmallDaemon:
    """A daemon of edgectl's own version on a socket that not everybody may use."""
    daemon.status["version"] = edged.__version__
    daemon.socket.chmod(0o660)
    return daemon


@pytest.fixture
def inside(
    daemon: SmallDaemon, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Run:
    """Return a function that runs edgectl on the small daemon in this process, which is cheap."""
    for name in [name for name in os.environ if name.startswith("EDGED_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("EDGED_SOCKET", str(daemon.socket))

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capfdbinary.readouterr())

    return run


MACHINE = {"cpu", "kernels", "memory", "cgroup", "psi", "power", "heat", "file", "disk"}
"""Checks of the machine that the tests run on; see test_checks_machine.py."""


def of_the_daemon(output: bytes) -> str:
    """Return what doctor says of the daemon: all before the machine."""
    lines = output.decode().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if line[6:13].strip() == "cpu")
    assert {line[6:13].strip() for line in lines[end:] if line[:4].strip()} <= MACHINE
    return "".join(lines[:end])


def amiss(result: subprocess.CompletedProcess[bytes]) -> list[tuple[str, str, str]]:
    """Return what is not ok but the machine: name, state and what is said; each has a remedy."""
    found = [check for check in json.loads(result.stdout) if check["state"] != "ok"]
    found = [check for check in found if check["name"] not in MACHINE]
    assert all(check["remedy"] for check in found)
    assert result.stderr == b""
    return [(check["name"], check["state"], check["says"]) for check in found]


def test_all_is_well(edgectl: Run, sound: SmallDaemon) -> None:
    result = edgectl("doctor")

    assert result.stderr == b""
    assert (
        of_the_daemon(result.stdout)
        == f"""\
ok    config   no file: defaults and environment
ok    socket   {sound.socket}, mode 0660
ok    daemon   {edged.__version__}, ready, up 1 h 2 min
ok    engine   ready, llama-cpp-python 0.3.36
ok    model    smollm2-135m-instruct-q4_1, 4 × 2048 tokens
ok    needs    engine 220.0 MB by the estimate, 210.0 MB measured; 1.50 GB available
ok    mqtt     mqtt://broker.lan:1883 connected, MQTT 5
ok    pool     kitchen, joined
ok    journal  0.2 MB of 16.8 MB
ok    clock    2026-11-21T14:00:00.123Z, synchronised
"""
    )
    assert result.returncode == 0


def test_mqtt_off_is_well(edgectl: Run, sound: SmallDaemon) -> None:
    sound.status["mqtt"] = None

    result = edgectl("doctor")

    assert "ok    mqtt     off (mqtt.url is empty)\n" in result.stdout.decode()
    assert "pool" not in result.stdout.decode()
    assert result.returncode == 0


def test_what_is_amiss_has_its_remedy_below(edgectl: Run, sound: SmallDaemon) -> None:
    problem = {"message": "not authorised\x1b", "remedy": "give mqtt.username", "since_seconds": 75}
    sound.status["mqtt"] |= {"state": "backing_off", "problem": problem, "protocol": None, "pool": None}

    result = edgectl("doctor")

    assert result.returncode == 1
    assert """\
fail  mqtt     mqtt://broker.lan:1883: not authorised␛ (for 1 min 15 s)
               → give mqtt.username
""" in result.stdout.decode()


def test_a_problem_that_names_the_broker_names_it_once(edgectl: Run, sound: SmallDaemon) -> None:
    says = "what listens at mqtt://broker.lan:1883 speaks TLS"
    problem = {"message": says, "remedy": "write mqtts:// in mqtt.url", "since_seconds": 75}
    sound.status["mqtt"] |= {"state": "backing_off", "problem": problem, "protocol": None, "pool": None}

    assert amiss(edgectl("doctor", "--json")) == [("mqtt", "fail", f"{says} (for 1 min 15 s)")]


def test_warnings_alone_are_no_failure(edgectl: Run, sound: SmallDaemon) -> None:
    sound.status["clock"]["clock_synchronised"] = False

    result = edgectl("doctor")

    assert result.returncode == 0
    assert """\
warn  clock    not synchronised: TLS, time stamps, and ttls across a restart depend on it
               → is NTP reachable? timedatectl set-ntp true
""" in result.stdout.decode()


def test_no_daemon(edgectl: Run, tmp_path: Path) -> None:
    path = tmp_path / "none.sock"

    result = edgectl("doctor", "--socket", str(path))

    assert result.returncode == 1
    assert (
        of_the_daemon(result.stdout)
        == f"""\
ok    config   no file: defaults and environment
fail  daemon   the daemon is not running: there is no socket {path}
               → start it by `systemctl start edged` or `edged`, or name its socket by --socket
"""
    )


def test_a_daemon_that_does_not_answer_rightly(edgectl: Run, sound: SmallDaemon) -> None:
    sound.routes["GET /v1/status"] = lambda exchange: exchange.speak(b"220 mail ready\r\n")

    result = edgectl("doctor", "--json")

    assert result.returncode == 1
    assert amiss(result) == [("daemon", "fail", f"what answers at {sound.socket} is not edged")]


@pytest.mark.parametrize(
    ("part", "fields", "found"),
    [
        (
            None,
            {"phase": "starting", "model": None},
            [("daemon", "warn", "starting"), ("model", "warn", "no model is loaded")],
        ),
        (
            None,
            {"phase": "degraded", "reason": "there is no model file x.gguf", "model": None},
            [("daemon", "fail", "degraded: there is no model file x.gguf")],
        ),
        (None, {"model": None}, [("model", "fail", "no model is loaded")]),
        (
            None,
            {"version": "0.0.1"},
            [("version", "warn", f"the daemon is 0.0.1, edgectl {edged.__version__}")],
        ),
        (
            "model",
            {"template": "plain"},
            [
                (
                    "model",
                    "warn",
                    "the model file has no chat template: a plain one is used, and answers may be poor",
                )
            ],
        ),
        ("engine", {"state": "failed"}, [("engine", "fail", "the engine is failed: the log says why")]),
        ("engine", {"restarts": 1}, [("engine", "warn", "the engine was restarted once: the log says why")]),
        (
            "engine",
            {"restarts": 4, "deaths": 1},
            [("engine", "warn", "the engine died once and has answered nothing since")],
        ),
        (
            "engine",
            {"state": "failed", "restarts": 4, "deaths": 5, "next_try_seconds": 58.2},
            [
                ("engine", "fail", "the engine is failed: the log says why"),
                (
                    "engine",
                    "fail",
                    "the engine died 5 times and has answered nothing since; the next try is in 58 s",
                ),
            ],
        ),
        (
            "engine",
            {"repack": False, "repack_reason": "died of SIGILL"},
            [("engine", "warn", "kernels without repacked weights, which are slower: died of SIGILL")],
        ),
        ("engine", {"notes": ["a", "b"]}, [("engine", "warn", "a"), ("engine", "warn", "b")]),
        (
            "engine",
            {"state": "low_memory"},
            [("engine", "fail", "the engine is low memory: the log says why")],
        ),
        (
            "memory",
            {"engine_bytes": 255_000_000},
            [
                (
                    "needs",
                    "warn",
                    "engine 220.0 MB by the estimate, 255.0 MB measured; 1.50 GB available",
                )
            ],
        ),
        (
            "memory",
            {"engine_bytes": None, "available_bytes": 219_000_000},
            [("needs", "warn", "engine 220.0 MB by the estimate, not in memory; 219.0 MB available")],
        ),
        (
            "mqtt",
            {"state": "connecting", "pool": None},
            [("mqtt", "warn", "mqtt://broker.lan:1883: connecting")],
        ),
        (
            "mqtt",
            {"state": "waiting_for_time", "pool": None},
            [("mqtt", "warn", "mqtt://broker.lan:1883: waiting for time")],
        ),
        (
            "mqtt",
            {"state": "duplicate_id", "pool": None},
            [("mqtt", "fail", "mqtt://broker.lan:1883: duplicate id")],
        ),
        (
            "mqtt",
            {"notes": ["the broker knows no shared subscriptions"]},
            [("mqtt", "warn", "the broker knows no shared subscriptions")],
        ),
        (
            "mqtt",
            {"pool": {"name": "p", "state": "connecting", "problem": None, "joined": False}},
            [("pool", "warn", "p: not joined, connecting")],
        ),
        (
            "mqtt",
            {"pool": {"name": "p", "state": "backing_off", "problem": "not allowed", "joined": False}},
            [("pool", "fail", "p: not allowed")],
        ),
        (
            "journal",
            {"state": "cannot_write", "problem": "no space left on device"},
            [("journal", "fail", "the journal can't be written: no space left on device")],
        ),
        (
            "journal",
            {"bytes": 15_000_000},
            [("journal", "warn", "the journal is nearly full: 15.0 MB of 16.8 MB")],
        ),
        (
            None,
            {"watch": {"thermal": {**HEAT, "state": "too_hot", "reason": "80.1 °C, the target is 75 °C"}}},
            [
                (
                    "governor",
                    "warn",
                    "too hot, new requests are refused: 80.1 °C, the target is 75 °C",
                )
            ],
        ),
        (
            None,
            {"watch": {"thermal": {**HEAT, "state": "distrusting", "reason": "it jumps"}}},
            [("governor", "warn", "it jumps")],
        ),
        (None, {"watch": {"thermal": {**HEAT, "state": "governing", "reason": "warm"}}}, []),
        (
            "journal",
            {"outbox_bytes": 4_000_000},
            [("journal", "warn", "the outbox is nearly full: 4.0 MB of 4.2 MB")],
        ),
        (
            "journal",
            {
                "losses": [
                    {"first": 17, "last": 19, "reason": "damaged"},
                    {"first": 4, "last": 4, "reason": "cut"},
                ]
            },
            [
                ("journal", "warn", "records 17 to 19 were lost: damaged"),
                ("journal", "warn", "record 4 was lost: cut"),
            ],
        ),
    ],
)
def test_each_part_is_judged(
    inside: Run,
    sound: SmallDaemon,
    part: str | None,
    fields: dict[str, Any],
    found: list[tuple[str, str, str]],
) -> None:
    (sound.status[part] if part else sound.status).update(fields)

    result = inside("doctor", "--json")

    assert amiss(result) == found
    assert result.returncode == any(state == "fail" for _, state, _ in found)
    # What doctor finds amiss, status warns of; the version and the socket it leaves alone.
    warnings = inside("status").stderr.decode().splitlines()
    assert warnings == [f"warning: {says}" for name, _, says in found if name != "version"]


def test_what_is_kept_of_prefixes_is_reckoned_with(edgectl: Run, sound: SmallDaemon) -> None:
    sound.status["engine"]["prefix_cache"] = {"bytes": 50_000_000}
    sound.status["memory"]["engine_bytes"] = 300_000_000

    says = "engine 220.0 MB by the estimate and 50.0 MB of prefixes, 300.0 MB measured; 1.50 GB available"
    assert f"ok    needs    {says}\n" in edgectl("doctor").stdout.decode()


def test_messages_that_were_dropped(edgectl: Run, sound: SmallDaemon) -> None:
    sound.status["mqtt"]["counters"]["dropped"] = 12

    assert amiss(edgectl("doctor", "--json")) == [
        ("mqtt", "warn", "12 messages to the broker were dropped since the start")
    ]


def test_a_socket_for_everybody(edgectl: Run, sound: SmallDaemon) -> None:
    sound.socket.chmod(0o666)

    assert amiss(edgectl("doctor", "--json")) == [
        ("socket", "warn", f"{sound.socket} has mode 0666: everybody on this computer may ask")
    ]


def test_a_configuration_with_faults(edgectl: Run, sound: SmallDaemon, tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text("[limits]\nqueu = 7\nper_client = 0\n")

    result = edgectl("doctor", "--json", "--config", str(file))

    assert result.returncode == 1
    faults = amiss(result)
    assert [(name, state) for name, state, _ in faults] == [("config", "fail")] * 2
    assert "limits.queue?" in faults[0][2] + faults[1][2]


def test_a_configuration_that_names_files_that_are_not_there(
    edgectl: Run, sound: SmallDaemon, tmp_path: Path
) -> None:
    result = edgectl("doctor", "--json", EDGED_MODEL__PATH=str(tmp_path / "none.gguf"))

    says = f"model.path = {tmp_path}/none.gguf: there is no such file"
    assert amiss(result) == [("config", "fail", says)]


def test_a_credential_that_the_service_alone_has_is_no_failure(
    edgectl: Run, sound: SmallDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "edged.toml"
    file.write_text('[http]\nlisten = "127.0.0.1:8080"\n')

    result = edgectl("doctor", "--json", "--config", str(file))

    [(name, state, says)] = amiss(result)
    assert (name, state) == ("config", "warn")
    assert "without a token" in says
    assert result.returncode == 0


def test_colours_on_a_terminal(terminal: Terminal, sound: SmallDaemon) -> None:
    person = terminal("doctor")

    assert person.end() == 0
    assert "\x1b[32mok  \x1b[0m  config" in person.seen


def test_a_person_is_sent_from_status_to_doctor(terminal: Terminal, sound: SmallDaemon) -> None:
    sound.status["engine"]["restarts"] = 1

    person = terminal("status")

    assert person.end() == 0
    assert "(edgectl doctor says what to do)" in person.screen()
