"""status, cancel and completion."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Run, SmallDaemon


def test_status_is_readable(edgectl: Run) -> None:
    result = edgectl("status")

    expected = """\
edged     0.1.0, ready, up 1 h 2 min, process 812
device    pi-a1b2c3
model     smollm2-135m-instruct-q4_1 (llama, 135 M parameters, Q4_1, 98.4 MB)
context   4 × 2048 tokens, KV cache f16
engine    ready, process 815, llama-cpp-python 0.3.36, 2 threads (4 for prompts)
kernels   armv8.2_2: NEON, DOTPROD
requests  2 running, 1 of 64 queued; 120 accepted, 115 done, 1 failed, 1 cancelled
speed     prompt 512 tokens/s, answer 62 tokens/s
memory    daemon 45.0 MB, engine 210.0 MB, 1.50 GB available
needs     engine 180.0 MB of its own, 40.0 MB mapped, prefix cache up to 90.0 MB
sessions  3
mqtt      mqtt://broker.lan:1883 connected, MQTT 5, pool kitchen joined; 41 asked, 4 to send, 2 reconnects
journal   0.2 MB of 16.8 MB; 3 to answer, 17 answers kept, 2 for the broker
clock     2026-11-21T14:00:00.123Z, synchronised
"""
    assert expected == result.stdout.decode()
    assert result.stderr == b""


def test_status_shows_how_the_parts_get_on_when_one_does_not(edgectl: Run, daemon: SmallDaemon) -> None:
    ok = {"state": "ok", "still_seconds": 0.0, "bound_seconds": 30.0, "stalls": 0}
    parts = {"event_loop": ok, "journal": ok | {"bound_seconds": 120.0}, "mqtt": ok | {"stalls": 1}}
    daemon.status["liveness"] = {"watchdog_seconds": None, "parts": parts}
    result = edgectl("status")
    assert "parts" not in result.stdout.decode()
    assert result.stderr.decode().splitlines()[0] == "warning: mqtt stood still once and was helped on"

    parts["journal"] |= {"state": "stalled", "still_seconds": 131.2, "stalls": 1}
    result = edgectl("status")
    last = result.stdout.decode().splitlines()[-1]
    assert last == "parts     event_loop gets on, journal still for 131 of 120 s, mqtt gets on"
    assert result.stderr.decode().splitlines()[0] == "warning: journal stands still, for 131 s by now"


def test_status_shows_the_heat_and_what_is_held_back_for_it(edgectl: Run, daemon: SmallDaemon) -> None:
    heat = {"state": "governing", "reason": "warm", "celsius": 75.44, "target_celsius": 75.0}
    daemon.status["watch"] = {"thermal": heat | {"threads": 2, "duty": 0.4}}
    said = "heat      75.4 °C, target 75 °C, governing: 2 threads, 40% of the time"
    assert said in edgectl("status").stdout.decode()
    heat |= {"celsius": None, "state": "unmeasured"}
    daemon.status["watch"] = {"thermal": heat | {"threads": 1, "duty": 1.0}}
    assert "no thermometer, target 75 °C, unmeasured: 1 thread, 100%" in edgectl("status").stdout.decode()


def test_status_warns(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.status["phase"], daemon.status["reason"] = "degraded", "the engine keeps dying"
    daemon.status["model"]["template"] = "plain"
    daemon.status["engine"] |= {
        "state": "restarting",
        "restarts": 3,
        "repack": False,
        "repack_reason": "died of SIGILL\x1b",
        "notes": ["threads: 8 were asked for, 4 are there"],
    }

    result = edgectl("status")

    assert result.returncode == 0
    assert result.stderr.decode().splitlines() == [
        "warning: degraded: the engine keeps dying",
        "warning: the engine was restarted 3 times: the log says why",
        "warning: kernels without repacked weights, which are slower: died of SIGILL␛",
        "warning: the model file has no chat template: a plain one is used, and answers may be poor",
        "warning: threads: 8 were asked for, 4 are there",
    ]


def test_status_warns_of_an_engine_that_failed_without_a_reason(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.status["engine"]["state"] = "failed"

    assert edgectl("status").stderr == b"warning: the engine is failed: the log says why\n"


def test_status_says_when_a_failed_engine_is_tried_again(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.status["engine"] |= {"state": "failed", "pid": None, "deaths": 5, "next_try_seconds": 58.2}

    assert "engine    failed (next try in 58 s), llama-cpp-python" in edgectl("status").stdout.decode()


def test_status_of_a_daemon_that_has_nothing_yet(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.status |= {"phase": "starting", "model": None, "reason": "loading the model"}
    daemon.status["engine"] |= dict.fromkeys(("pid", "library", "threads", "kernels", "kernel_build"))
    daemon.status["engine"] |= {"state": "starting", "load_progress": 0.25}
    daemon.status["speed"] = {"prompt_tokens_per_second": None, "tokens_per_second": None}
    daemon.status["memory"] |= {"engine_bytes": None, "engine_estimate": None}

    lines = edgectl("status").stdout.decode().splitlines()

    assert "model     none loaded" in lines
    assert "engine    starting (25% loaded)" in lines
    assert "speed     not measured yet" in lines
    assert "memory    daemon 45.0 MB, engine -, 1.50 GB available" in lines
    assert not [line for line in lines if line.startswith("needs")]


def test_status_says_what_is_put_back(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.status["requests"]["put_back"] = 1

    assert "2 running, 1 of 64 queued (1 of them put back); 120" in edgectl("status").stdout.decode()


def test_status_as_json(edgectl: Run, daemon: SmallDaemon) -> None:
    assert daemon.status == json.loads(edgectl("status", "--json").stdout)


def test_cancel(edgectl: Run, daemon: SmallDaemon) -> None:
    daemon.routes["DELETE /v1/requests/job:1"] = lambda exchange: exchange.reply(
        {"id": "job:1", "state": "running"}
    )
    daemon.routes["DELETE /v1/requests/job:2"] = lambda exchange: exchange.refuse(
        404, "invalid", "you have no request job:2"
    )

    assert (edgectl("cancel", "job:1").returncode, edgectl("cancel", "job:1").stdout) == (
        0,
        b"job:1: cancelled\n",
    )
    assert json.loads(edgectl("cancel", "job:1", "--json").stdout) == {"id": "job:1", "state": "running"}
    unknown = edgectl("cancel", "job:2")
    assert (unknown.returncode, b"you have no request job:2" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(edgectl: Run, shell: str) -> None:
    script = edgectl("completion", shell).stdout

    assert b"--max-tokens" in script or b"-l max-tokens" in script
    assert b"verify" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, check=True)


def test_bash_completes(edgectl: Run) -> None:
    script = edgectl("completion", "bash").stdout.decode()
    asks = (
        'COMP_WORDS=(edgectl mod); COMP_CWORD=1; _shtab_edgectl edgectl mod edgectl; echo "${COMPREPLY[@]}"'
    )

    shown = subprocess.run(["bash", "-c", f"{script}\n{asks}"], capture_output=True, check=True).stdout

    assert shown == b"model\n"


def test_version(edgectl: Run) -> None:
    assert edgectl("--version").stdout.startswith(b"edgectl ")
