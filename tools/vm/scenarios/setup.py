"""The first run on a device, by `edgectl setup`; and a model that only its user can read."""

from __future__ import annotations

import json

from tools.vm.device import PAYLOAD, Device
from tools.vm.table import show

PARTS = ("hidden_model", "imported", "set_up")

_HOME = "/home/ada"


def hidden_model(device: Device) -> str:
    """A configured model that the sandbox hides is no crash, and doctor names it."""
    run = device.machine.out
    run(f"install -o ada -g ada -m 644 {PAYLOAD}/tiny.gguf {_HOME}/mine.gguf && chmod 755 {_HOME}")
    run(f"sed -i 's,^path = .*,path = \"{_HOME}/mine.gguf\",' /etc/edged/edged.toml")
    run("systemctl restart edged.service", seconds=60)
    device.machine.until("edgectl --json status | grep -q '\"phase\": \"degraded\"'")
    found = json.loads(device.machine.run("edgectl --json doctor").out)
    told = [check for check in found if f"edgectl model import {_HOME}/mine.gguf" in check["remedy"]]
    show(told, f"doctor does not name the file: {found}")
    show(device.property("NRestarts") == "0", "the daemon was started again")
    return told[0]["says"]


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
    run(f"dpkg-deb --fsys-tarfile {PAYLOAD}/edged.deb | tar -xO ./etc/edged/edged.toml > /etc/edged/edged.toml")
    run("mosquitto_passwd -b -c /etc/mosquitto/passwd device secret && chmod 644 /etc/mosquitto/passwd")
    run(
        "printf 'listener 1884 127.0.0.1\\npassword_file /etc/mosquitto/passwd\\nallow_anonymous false\\n'"
        " > /etc/mosquitto/conf.d/login.conf && systemctl restart mosquitto"
    )
    run("echo secret > /root/password")
    said = run(
        "edgectl setup --yes --device-id device --broker mqtt://127.0.0.1:1884 --username device"
        f" --password-file /root/password --model {_HOME}/mine.gguf",
        seconds=300,
    )
    show("$ edgectl ask" in said, f"no first question: {said}")
    show(run("stat -c '%a %U' /etc/credstore/edged.mqtt_password") == "600 root", "the password is open")
    show("secret" not in run("cat /etc/edged/edged.toml"), "the password is in the configuration")
    device.machine.until("edgectl --json status | grep -q '\"state\": \"connected\"'")
    run("rm /etc/mosquitto/conf.d/login.conf && systemctl restart mosquitto")
    device.configure()
    device.ready()
    return "configured, started, a model from /home, logged in at the broker, asked"
