"""fleet list, show, ask and cmd with simulated devices at a real broker."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulated_fleet import SimulatedFleet
from tools.fleetsim.device import Device

if TYPE_CHECKING:
    import subprocess

    from tests.brokers import Mosquitto
    from tests.cli.conftest import MakeDevice, Run

COUNT = 12  # pools: the odd numbers, kitchen, hall and yard in turn
Edgectl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def fleet(broker: Mosquitto) -> Iterator[tuple[SimulatedFleet, str]]:
    """Devices of which 0 is dead, 1 has stopped, and the others are online."""
    root = f"fleet-{secrets.token_hex(4)}"
    simulated = SimulatedFleet(broker.port, COUNT, root=root, interval=5.0)
    simulated.do(Device.die, 0)
    simulated.stop(1)
    yield simulated, root
    simulated.close()


@pytest.fixture
def run(edgectl: Run, broker: Mosquitto, fleet: tuple[SimulatedFleet, str]) -> Edgectl:
    """Return a function that runs an action of fleet on those devices."""
    return lambda *words: edgectl("fleet", words[0], "--broker", broker.url, "--root", fleet[1], *words[1:])


def devices(run: Edgectl, *words: str) -> dict[str, Any]:
    done = run("list", "--json", *words)
    assert done.returncode == 0, done.stderr
    return {each["device_id"]: each for each in json.loads(done.stdout)["devices"]}


def wait_for_the_will(run: Edgectl) -> None:
    while devices(run)["sim-000000"]["state"] != "dead":
        pass


def test_list_shows_the_worst_first(run: Edgectl) -> None:
    wait_for_the_will(run)
    done = run("list")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[0].split() == ["STATE", "DEVICE", "PHASE", "MODEL", "POOL", "ALARMS", "OR", "REASON"]
    assert lines[1].split(maxsplit=5)[:3] == ["dead", "sim-000000", "lost"]
    assert lines[1].endswith("the connection broke")
    assert lines[2].split()[:3] == ["stopped", "sim-000001", "stopped"]
    assert [line.split()[1] for line in lines[3:]] == [f"sim-{number:06d}" for number in range(2, COUNT)]


def test_list_filters(run: Edgectl) -> None:
    words = (
        "--device",
        "sim-*",
        "--pool",
        "yard",
        "--pool",
        "hall",
        "--model",
        "gemma*",
        "--state",
        "online",
    )
    assert set(devices(run, *words)) == {"sim-000005", "sim-000011"}


def test_list_counts_for_scripts(run: Edgectl) -> None:
    wait_for_the_will(run)
    told = json.loads(run("list", "--json").stdout)
    assert told["counts"] == {"online": COUNT - 2, "stale": 0, "dead": 1, "stopped": 1, "unknown": 0}
    device = told["devices"][-1]
    assert (device["device_id"], device["pool"], device["phase"]) == ("sim-000011", "yard", "ready")


def test_show_tells_of_one_and_fails_if_it_is_not_there(run: Edgectl) -> None:
    wait_for_the_will(run)
    done = run("show", "sim-000002")
    assert done.returncode == 0
    assert b"edged 0.1.0; gemma-3-270m-it-q4_0" in done.stdout
    assert json.loads(run("show", "--json", "sim-000002").stdout)["info"]["capabilities"]["pool"] is None
    assert run("show", "sim-000000").returncode == 1
    unknown = run("show", "nobody")
    assert (unknown.returncode, unknown.stdout) == (2, b"")
    assert b"knows no device nobody" in unknown.stderr


def test_a_command_reaches_all_and_who_is_away_is_named(run: Edgectl) -> None:
    wait_for_the_will(run)
    done = run("cmd", "--all", "--json", "health_check")
    told = json.loads(done.stdout)

    assert done.returncode == 1
    assert told["counts"] == {"ok": COUNT - 2, "error": 0, "no_answer": 0, "offline": 2}
    results = {each["device_id"]: each for each in told["results"]}
    assert results["sim-000003"]["data"] == {"phase": "ready"}
    assert results["sim-000000"]["status"] == "offline"
    assert b"not told, as not online: sim-000000, sim-000001" in done.stderr


def test_a_command_to_one_prints_what_it_gives_back(run: Edgectl) -> None:
    done = run("cmd", "--device", "sim-000004", "health_check")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"phase", b"ready"], b"")


def test_a_command_to_those_online_is_a_success(run: Edgectl) -> None:
    done = run("cmd", "--state", "online", "reload")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + COUNT - 2
    assert done.stderr == b"edgectl: 10 devices: 10 ok\n"


def test_who_does_not_answer_is_named_and_its_question_is_cancelled(
    edgectl: Run, broker: Mosquitto, make_device: MakeDevice
) -> None:
    silent = make_device(script=lambda ask: None)
    silent.publish("status", json.dumps({"state": "online", "phase": "ready"}), retain=True)
    named = ("--broker", broker.url, "--device", silent.id, "--timeout", "1", "--json")

    done = edgectl("fleet", "cmd", *named, "reload")
    assert done.returncode == 1
    assert done.stderr.decode() == f"edgectl: no answer in time from {silent.id}\n"

    done = edgectl("fleet", "ask", *named, "--client", "alice", "--id", "q-1", "Hi")
    assert done.returncode == 1
    assert json.loads(done.stdout)["counts"]["no_answer"] == 1
    assert silent.cancelled.get(timeout=20) == ("alice", "q-1")


def test_a_refusal_is_told(edgectl: Run, broker: Mosquitto, make_device: MakeDevice) -> None:
    busy = make_device(script=lambda ask: ask.frame("error", 0, code="busy", message="64 of 64 wait"))
    busy.publish("status", json.dumps({"state": "online", "phase": "ready"}), retain=True)

    done = edgectl("fleet", "ask", "--broker", broker.url, "--device", busy.id, "Hi")

    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"edgectl: {busy.id}: busy: 64 of 64 wait\n"


def test_nothing_is_told_without_a_selection(run: Edgectl) -> None:
    for words in (("cmd", "reload"), ("ask", "Hi")):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"no device is selected" in done.stderr
    done = run("cmd", "--device", "sim-000002", "--device", "nobody", "reload")
    assert done.returncode == 2
    assert b"nobody is not among the devices" in done.stderr


def test_every_device_of_a_pool_answers(run: Edgectl) -> None:
    done = run("ask", "--pool", "yard", "Who are you?")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert {line for line in lines if not line.startswith("==")} == {"I am sim-000005.", "I am sim-000011."}
    assert {line.split()[1] for line in lines if line.startswith("==")} == {"sim-000005", "sim-000011"}


def test_one_device_answers_alone(run: Edgectl) -> None:
    done = run("ask", "--device", "sim-000005", "Who are you?")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"I am sim-000005.\n", b"")


def test_answers_for_scripts(run: Edgectl) -> None:
    wait_for_the_will(run)
    done = run("ask", "--device", "sim-00000?", "--json", "--id", "q-1", "Who are you?")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert told["id"] == "q-1"
    assert told["counts"] == {"ok": 8, "error": 0, "no_answer": 0, "offline": 2}
    answers = {each["device_id"]: each["answer"] for each in told["results"]}
    assert answers["sim-000002"]["text"] == "I am sim-000002."
    assert answers["sim-000000"] is None
