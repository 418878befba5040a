"""The sixth: stop, restart, reload, upgrade, remove, purge."""

from __future__ import annotations

import json
import subprocess
import sys

from tools.vm.device import NEXT, STATUS, Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("reloaded", "restarted", "stopped", "wrong_configuration", "upgraded", "removed", "purged")


def reloaded(device: Device) -> str:
    """A reload takes the changed settings over, and the process stays."""
    device.ready()
    before = device.pid()
    device.machine.out("sed -i '1i log_level = \"debug\"' /etc/edged/edged.toml && systemctl reload edged")
    # systemd 252 takes a reload for done once the signal is sent.
    device.machine.until("journalctl -q -u edged.service -n 50 -o cat | grep -q log_level")
    show(device.pid() == before, "the process changed")
    device.machine.out("sed -i 1d /etc/edged/edged.toml && systemctl reload edged")
    device.ask()
    return "log_level changed in the same process"


def restarted(device: Device) -> str:
    """While it restarts nobody is refused."""
    restart = device.machine.start("systemctl restart edged.service")
    for _ in range(3):
        device.ask()
    show(device.machine.ended(restart, "the restart").code == 0, "the restart failed")
    return "3 asks during a restart, all answered"


def stopped(device: Device) -> str:
    """A stop lets what runs end, if it is given the time that an emulator takes, and tells the broker."""
    run = device.machine.out
    device.ready()
    run("sed -i '1i stop_seconds = 120' /etc/edged/edged.toml && systemctl restart edged.service")
    device.ready()
    asked = device.machine.start(device.asking("Hello", tokens=160))
    device.machine.until(f"{STATUS} | grep -q '\"running\": 1'")
    run("systemctl stop edged.socket edged.service")
    said = device.machine.ended(asked, "the ask")
    show(said.code == 0, f"what ran was cut off: {said.err}")
    device.requester.wait(lambda: b'"stopped"' in (device.requester.retained("status") or b""))
    run("sed -i 1d /etc/edged/edged.toml && systemctl start edged.service")
    device.ready()
    show(
        device.property("ActiveState", "edged.socket") == "active", "the service came back without its socket"
    )
    return "the answer that ran was finished, the broker knows"


def wrong_configuration(device: Device) -> str:
    """Wrong settings are named, and the service is not started again and again."""
    device.machine.out("cp /etc/edged/edged.toml /root/good.toml; echo nonsense = 1 >> /etc/edged/edged.toml")
    show(device.machine.run("systemctl restart edged.service").code != 0, "it started with wrong settings")
    device.machine.until("systemctl show --value -p ActiveState edged.service | grep -q failed")
    show(device.property("NRestarts") == "0", "it was started again")
    show("nonsense" in device.machine.out("journalctl -q -u edged.service -n 20"), "the key is not named")
    device.machine.out("cp /root/good.toml /etc/edged/edged.toml && systemctl start edged.service")
    device.ready()
    return "status 78, named in the journal, not started again"


def upgraded(device: Device) -> str:
    """An upgrade keeps configuration, journal and model, and its socket; what was accepted is answered."""
    run = device.machine.out
    socket, models = (
        "stat -c %i /run/edged/edged.sock",
        "sha256sum /var/lib/edged/models/* /etc/edged/edged.toml",
    )
    before = run(socket), run(models), device.pid()
    asked = [f"upgraded-{number}" for number in range(4)]
    for id in asked:
        device.requester.ask(id, prompt="Hello", max_tokens=64)
    device.heard(lambda: all(device.requester.frames(id) for id in asked), 120)
    device.install("edged-next.deb")
    device.ready()
    show(run(socket) == before[0], "the socket is another one")
    show(run(models) == before[1], "model or configuration changed")
    show(device.pid() != before[2], "the old daemon still runs")
    frames = device.ends(asked)
    show(all(frame["type"] == "done" for frame in frames), f"not all are done: {frames}")
    version = run("dpkg-query -W -f '${Version}' edged")
    show(version.endswith(NEXT), f"{version} is installed")
    return f"to {version}; {len(asked)} prompts of before are answered"


def removed(device: Device) -> str:
    """Removed: no process, no program; configuration and state stay, and the broker forgets the device."""
    device.machine.out("echo edged edged/forget boolean true | debconf-set-selections")
    device.machine.out("DEBIAN_FRONTEND=noninteractive apt-get -q -y remove edged", seconds=300)
    command = ["mqtt", "forget", "device", "--broker", device.broker.url, "--json"]
    said = subprocess.run([sys.executable, "-m", "edged.cli.main", *command], capture_output=True, text=True)
    show(json.loads(said.stdout).get("removed") == [], f"what the broker kept: {said.stdout}{said.stderr}")
    show(device.machine.run("pgrep -u edged").code != 0, "processes are left")
    left = device.machine.run(
        "test -e /usr/lib/edged || test -e /usr/bin/edged || test -e /run/edged/edged.sock"
    )
    show(
        left.code != 0,
        "programs or the socket are left: " + device.machine.run("ls -R /usr/lib/edged /run/edged").out,
    )
    device.machine.out("test -e /etc/edged/edged.toml && test -e /var/lib/edged/models/tiny.gguf")
    return "configuration and state stay, the broker keeps nothing"


def purged(device: Device) -> str:
    """Purged: nothing is left."""
    device.machine.out("DEBIAN_FRONTEND=noninteractive apt-get -q -y purge edged", seconds=300)
    left = device.machine.out(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /var/log -o -path /root \\) -prune -o"
        " -name '*edged*' -print | grep -v -e /usr/lib/python3 -e /payload || true"
    )
    show(not left, f"left behind: {left}")
    show(device.machine.run("getent passwd edged || getent group edged").code != 0, "user or group is left")
    return "no file, no user, no group"
