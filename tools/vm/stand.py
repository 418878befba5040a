"""One disk with edged installed, what is in its machine as it is wanted, and a broker on the host."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.brokers import Mosquitto
from tests.e2e.mqtt.conftest import Requester
from tools.debian.package import ROOT, Target
from tools.debian.roots import MissingError
from tools.vm.device import NEXT, Device
from tools.vm.image import image, payload
from tools.vm.machine import Machine
from tools.vm.scenarios.service import installed
from tools.vm.table import Table

_BROUGHT = ("inject.py", "hog.py")


class GoneError(Exception):
    """There is no machine to go on with; the table says why."""


class Stand:
    """Boots the machine, installs the package in it once, and carries out what is to be shown.

    Attributes:
        table: what was shown.
        target: what is tried.
        place: a directory for everything.

    Args:
        table: for the rows.
        target: what is tried.
        package: the package.
        place: a directory for everything.

    Raises:
        MissingError: there is no such package.
    """

    def __init__(self, table: Table, target: Target, package: Path, place: Path) -> None:
        if not package.exists():
            raise MissingError(f"there is no {package}: make deb")
        self.table = table
        self.target = target
        self.place = place
        self.image = image(target.release, target.architecture)
        self._payload = place / "payload.img"
        self._broker = Mosquitto(place / "broker")
        self._requester = Requester(self._broker, "test", "device")
        self._machine: Machine | None = None
        self._kernel: tuple[str, ...] = ()
        self._installed = False
        _bring(package, place / "brought", self._payload)

    def __enter__(self) -> Stand:
        with contextlib.ExitStack() as stack:
            self._broker.start()
            stack.callback(self._broker.kill)
            stack.enter_context(self._requester)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._machine:
            self._machine.cut_power()
        self._stack.close()

    def show(self, scenario: str) -> None:
        """Carry out all parts of a scenario, in the machine that it wants.

        Raises:
            GoneError: the machine does not boot, or edged can't be installed.
        """
        module = importlib.import_module(f"tools.vm.scenarios.{scenario}")
        device = self.device(module.KERNEL)
        for part in module.PARTS:
            name = f"{scenario}: {part.replace('_', ' ')}"
            self.row(name, functools.partial(getattr(module, part), device))

    def device(self, kernel: tuple[str, ...]) -> Device:
        """Return the machine with edged in it, booted with these words for its kernel."""
        if self._machine is None or kernel != self._kernel:
            self.off()
            self._kernel = kernel
            self._machine = Machine(
                self.image, self.place / "machine", payload=self._payload, kernel_options=kernel
            )
            self.booted(self._machine, f"boots with {' '.join(kernel)}", self.on(self._machine).prepare)
        device = self.on(self._machine)
        if not self._installed:
            if not self.row("installed", functools.partial(installed, device)):
                raise GoneError
            self._installed = True
        return device

    def on(self, machine: Machine) -> Device:
        """Return edged in a machine."""
        return Device(machine, self._broker, self._requester)

    def booted(self, machine: Machine, name: str, then: Callable[[], None] = lambda: None) -> None:
        """Boot a machine, and do what each boot of it wants.

        Raises:
            GoneError: it does not come up.
        """

        def boots() -> str:
            machine.__enter__()
            then()
            return f"the emulator hung {machine.hung} times before Debian" if machine.hung else ""

        if not self.row(name, boots):
            raise GoneError

    def row(self, name: str, part: Callable[[], str | None]) -> bool:
        """Carry out one part; say whether it passed."""
        return self.table.row(f"{self.target.architecture}/{self.target.release}", name, part)

    def off(self) -> None:
        """Shut the machine down."""
        if self._machine:
            self._machine.power_off()
            self._machine.cut_power()
            self._machine = None

    def disk(self) -> Path:
        """Shut the machine down and return a copy of its disk."""
        self.off()
        copy = self.place / "disk.raw"
        command = ["qemu-img", "convert", "-O", "raw", self.place / "machine/disk.qcow2", copy]
        subprocess.run(list(map(str, command)), check=True)
        return copy


def _bring(package: Path, directory: Path, disk: Path) -> None:
    """Make a disk with all that the machine is to get from here."""
    directory.mkdir()
    shutil.copy(package, directory / "edged.deb")
    _newer(package, directory / "edged-next.deb", directory / "unpacked")
    for name in _BROUGHT:
        shutil.copy(Path(__file__).with_name(name), directory)
    subprocess.run(
        [sys.executable, ROOT / "tools/make_tiny_model.py", "--out", directory / "tiny.gguf"], check=True
    )
    payload(directory, disk)


def _newer(package: Path, newer: Path, unpacked: Path) -> None:
    """Make the same package with a greater version, to upgrade to."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", rf"\1{NEXT}", control.read_text(), flags=re.M))
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(unpacked), str(newer)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
