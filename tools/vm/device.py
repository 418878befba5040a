"""A machine with edged on it, as its operator and its users meet it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from tests.brokers import Mosquitto
from tests.e2e.mqtt.conftest import Requester
from tools.vm.image import HOST
from tools.vm.machine import Machine
from tools.vm.table import ShownError

PAYLOAD = "/payload"
NEXT = "+next"
"""Ends the version of the package that is upgraded to."""
CONFIGURATION = """\
device_id = "device"
[model]
path = "/var/lib/edged/models/tiny.gguf"
context = 512
sequences = 2
[mqtt]
url = "mqtt://{host}:{port}"
"""
STATUS = "curl -s -m 10 --unix-socket /run/edged/edged.sock http://edged/v1/status"
"""Asks for the status, and is fast on an emulated processor."""


class Device:
    """Speaks with edged in a machine by the programs that its package brings.

    Attributes:
        machine: where it runs.
        broker: the device's.
        requester: asks it over MQTT.

    Args:
        machine: where it runs.
        broker: runs on the host, and so outlives the machine.
        requester: asks it there.
    """

    def __init__(self, machine: Machine, broker: Mosquitto, requester: Requester) -> None:
        self.machine = machine
        self.broker = broker
        self.requester = requester
        self._configuration = CONFIGURATION.format(host=HOST, port=broker.port)

    def prepare(self) -> None:
        """Make the users, and mount what the host brought along."""
        run = self.machine.out
        run(f"mkdir -p {PAYLOAD} && mountpoint -q {PAYLOAD} || mount -o ro LABEL=payload {PAYLOAD}")
        run(
            "id ada 2>/dev/null || useradd --create-home ada; id bob 2>/dev/null || useradd --create-home bob"
        )

    def install(self, package: str) -> None:
        """Install or upgrade with apt, as an operator does."""
        options = "-q -y --no-install-recommends -o Dpkg::Options::=--force-confold"
        self.machine.out(
            f"DEBIAN_FRONTEND=noninteractive apt-get {options} install {PAYLOAD}/{package}", seconds=600
        )

    def configure(self) -> None:
        """Give edged the tiny model, a broker and one user who may ask."""
        run = self.machine.out
        run("install -d -o edged -g edged /var/lib/edged/models")
        run(f"install -o edged -g edged -m 644 {PAYLOAD}/tiny.gguf /var/lib/edged/models/tiny.gguf")
        run(f"printf %s {shlex.quote(self._configuration)} > /etc/edged/edged.toml")
        run("usermod --append --groups edged ada")
        run("systemctl restart edged.service")

    def ask(self, text: str = "Hello", *, user: str = "ada", tokens: int = 8, seconds: float = 240) -> str:
        """Ask by edgectl and return the answer's text; it says what went wrong by an exception."""
        return json_of(self.machine.out(self.asking(text, user=user, tokens=tokens), seconds=seconds))

    def asking(self, text: str, *, user: str = "ada", tokens: int = 8) -> str:
        """Return the command that asks."""
        command = f"edgectl --json ask --seed 1 --max-tokens {tokens} {shlex.quote(text)}"
        return f"runuser -u {user} -- {command}"

    def status(self) -> dict[str, Any]:
        """Return the daemon's own word."""
        status: dict[str, Any] = json.loads(self.machine.out(STATUS))
        return status

    def ready(self, seconds: float = 240) -> float:
        """Wait for an engine that serves; return the seconds that it took."""
        return self.machine.until(f'{STATUS} | grep -q \'"state": "ready"\'', seconds=seconds)

    def ends(self, ids: Iterable[str], seconds: float = 240) -> list[dict[str, Any]]:
        """Wait until requests over MQTT have ended; return their last frames.

        Raises:
            ShownError: they did not.
        """
        wanted = set(ids)

        def ended() -> dict[str, dict[str, Any]]:
            frames = (self.requester.frames(id) for id in wanted)
            return {one["id"]: one for each in frames for one in each if one["type"] in {"done", "error"}}

        self.heard(lambda: len(ended()) == len(wanted), seconds)
        return list(ended().values())

    def heard(self, condition: Callable[[], object], seconds: float) -> None:
        """Wait until something was heard over MQTT.

        Raises:
            ShownError: it was not; with what was, and what the daemon says.
        """
        try:
            self.requester.wait(condition, seconds)
        except AssertionError as error:
            journal = "journalctl -q -b -u edged.service -n 20 -o short-monotonic; cat /proc/uptime"
            told = self.machine.run(journal).out
            raise ShownError(f"not within {seconds:.0f} s; heard: {error}\njournal: {told}") from None

    def property(self, name: str, unit: str = "edged.service") -> str:
        """Return what systemd says of a unit."""
        return self.machine.out(f"systemctl show --value -p {name} {unit}")

    def pid(self) -> int:
        """Return the daemon's process."""
        return int(self.property("MainPID"))

    def engine(self) -> int:
        """Return the engine's process: the daemon's only child."""
        return int(self.machine.out(f"pgrep -P {self.pid()}"))

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """Return the journal's entries of the unit."""
        words = " ".join(["journalctl", "-q", "-o", "json", "-u", "edged.service", *matches])
        return [json.loads(line) for line in self.machine.out(words).splitlines()]


def json_of(answer: str) -> str:
    """Return the text of an answer in JSON."""
    text: str = json.loads(answer)["choices"][0]["message"]["content"]
    return text
