"""The first run on a device, by `edgectl setup`; and a model that only its user can read."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import Mosquitto
from tools.vm.device import PAYLOAD, STATUS, Device
from tools.vm.image import HOST
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("hidden_model", "imported", "set_up", "drop_in_for_vcgencmd")

_HOME = "/home/ada"


def hidden_model(device: Device) -> str:
    """A configured model that the sandbox hides is no crash, and doctor names it."""
    run = device.machine.out
    run(f"install -o ada -g ada -m 644 {PAYLOAD}/tiny.gguf {_HOME}/mine.gguf && chmod 755 {_HOME}")
    run(f"sed -i 's,^path = .*,path = \"{_HOME}/mine.gguf\",' /etc/edged/edged.toml")
    run("systemctl restart edged.service")
    device.machine.until(f'{STATUS} | grep -q \'"phase": "degraded"\'')
    found = json.loads(device.machine.run("edgectl --json doctor").out)
    told = [check for check in found if f"edgectl model import {_HOME}/mine.gguf" in check["remedy"]]
    show(told, f"doctor does not name the file: {found}")
    show(device.property("NRestarts") == "0", "the daemon was started again")
    return str(told[0]["says"])


def imported(device: Device) -> str:
    """ada hands over a file of hers, and it is the daemon's."""
    run = device.machine.out
    place = run(f"runuser -u ada -- edgectl model import {_HOME}/mine.gguf", seconds=240).splitlines()[0]
    show(place == "/var/lib/edged/models/mine.gguf", f"it is at {place}")
    show(run(f"stat -c %U {place}") == "edged", "it is not the daemon's")
    run(f"cmp {place} {_HOME}/mine.gguf")
    again = device.machine.run(f"runuser -u ada -- edgectl model import {_HOME}/mine.gguf")
    show(again.code == 0, f"once more: {again.err}")
    return f"from {_HOME}, which the daemon can't see"


def set_up(device: Device) -> str:
    """A fresh configuration, a broker that wants a login: one command, and the first answer is there."""
    run = device.machine.out
    fresh = f"dpkg-deb --fsys-tarfile {PAYLOAD}/edged.deb | tar -xO ./etc/edged/edged.toml"
    run(f"{fresh} > /etc/edged/edged.toml")
    run("echo secret > /root/password")
    with _broker_with_login() as broker:
        said = run(
            f"edgectl setup --yes --device-id device --broker mqtt://{HOST}:{broker.port} --username device"
            f" --password-file /root/password --model {_HOME}/mine.gguf",
            seconds=300,
        )
        show("$ edgectl ask" in said, f"no first question: {said}")
        device.machine.until(f'{STATUS} | grep -q \'"state": "connected"\'')
    show(run("stat -c '%a %U' /etc/credstore/edged.mqtt_password") == "600 root", "the password is open")
    show("secret" not in run("cat /etc/edged/edged.toml"), "the password is in the configuration")
    run("rm /etc/credstore/edged.mqtt_password")
    device.configure()
    device.ready()
    return "configured, started, a model from /home, logged in at the broker, asked"


def drop_in_for_vcgencmd(device: Device) -> str:
    """The device that vcgencmd needs is open with the drop-in alone; another stands in for it here."""
    run, drop_ins = device.machine.out, "/etc/systemd/system/edged.service.d"
    example = "/usr/share/doc/edged/examples/vcgencmd.conf"
    run("mknod -m 660 /dev/vcio c 5 1 && chgrp video /dev/vcio")
    # It runs as the daemon does: in its sandbox and its control group.
    look = "dd if=/dev/vcio of=/dev/null count=0 iflag=nonblock 2>/dev/null && echo open || echo closed"
    unit = f'[Service]\\nExecStartPre=/bin/sh -c "{look}"\\n'
    run(f"install -d {drop_ins} && printf '{unit}' > {drop_ins}/look.conf")
    anew = "systemctl daemon-reload && systemctl restart edged.service"
    for step, expected in (("true", "closed"), (f"cp {example} {drop_ins}/vcgencmd.conf", "open")):
        run(f"{step} && {anew}")
        told = [entry["MESSAGE"] for entry in device.journal("-n", "30")]
        found = [word for word in told if word in ("open", "closed")][-1]
        show(found == expected, f"/dev/vcio is {found}, not {expected}")
    run(f"rm -r {drop_ins} /dev/vcio && {anew}")
    device.ready()
    return "closed without it, open with it"


@contextmanager
def _broker_with_login() -> Iterator[Mosquitto]:
    with tempfile.TemporaryDirectory() as place:
        passwords = Path(place) / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "device", "secret"], check=True)
        passwords.chmod(0o644)
        config = f"password_file {passwords}\nallow_anonymous false"
        broker = Mosquitto(Path(place) / "broker", config=config)
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()
