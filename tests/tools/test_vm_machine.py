"""What is done about an emulator that hangs, with a program in qemu's place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.vm import machine as machines
from tools.vm.image import Image
from tools.vm.machine import HANGS, HungError, Machine, MachineError

# Each start is a line of `boots`, which says how far this boot comes; the disk gets a word at each.
_QEMU = """
import json, pathlib, re, signal, socket, sys
place = pathlib.Path(re.search("path=([^,]+)/agent", " ".join(sys.argv))[1])
log = re.search("log.filename=([^,]+),", " ".join(sys.argv))
how, *rest = (place / "boots").read_text().split()
(place / "boots").write_text(" ".join(rest))
for disk in [place / "disk.qcow2", *([pathlib.Path(log[1])] if log else [])]:
    disk.write_text(disk.read_text() + how)
end = "Begin: Running /scripts/init-bottom ... done." if how != "hangs" else ""
(place / "console.log").write_text("Loading, please wait...\\n" + end + "x" * 5000)
port = socket.socket(socket.AF_UNIX)
port.bind(str(place / "agent"))
port.listen()
guest, _ = port.accept()
if how == "comes-up":
    guest.sendall(json.dumps({"boot": "this-one"}).encode() + b"\\n")
signal.pause()
"""
_PROGRAMS = {"qemu-system-x86_64": _QEMU, "qemu-img": "import sys; open(sys.argv[-1], 'w').close()"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine of which `boots` says how its boots go."""
    for name, program in _PROGRAMS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{program}")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(machines, "HANG_SECONDS", 0.1)  # the console is written before it can be asked
    place = tmp_path / "machine"
    place.mkdir()
    image = Image(12, "amd64", disk=tmp_path / "disk", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd")
    return Machine(image, place, log=tmp_path / "writes")


def _boots(machine: Machine, *how: str) -> None:
    (machine.disk.parent / "boots").write_text(" ".join(how))


def test_boot_that_hangs_before_debian_is_begun_anew_and_leaves_nothing(machine: Machine) -> None:
    _boots(machine, "hangs", "hangs", "comes-up")
    machine.disk.write_text("installed,")

    with machine:
        assert (machine.hung, machine.boot) == (2, "this-one")
        assert machine.disk.read_text() == "installed,comes-up"
        assert (machine.disk.parents[1] / "writes").read_text() == "comes-up"


def test_emulator_that_always_hangs_is_given_up(machine: Machine) -> None:
    _boots(machine, *["hangs"] * (HANGS + 1), "comes-up")

    with pytest.raises(HungError, match="before Debian"):
        machine.__enter__()
    assert (machine.disk.parent / "boots").read_text() == "comes-up"


def test_debian_that_does_not_come_up_is_not_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _boots(machine, "debian-hangs", "comes-up")
    monkeypatch.setattr(machines, "BOOT_SECONDS", 0.2)

    with pytest.raises(MachineError, match="did not come up") as fault:
        machine.__enter__()
    assert not isinstance(fault.value, HungError)
    assert machine.hung == 0
