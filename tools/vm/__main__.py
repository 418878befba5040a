"""The service on a real systemd: install edged's package on Debian in virtual machines and show what holds.

Each machine is emulated, without KVM, with two processors and 1 GB. What is slow to make is kept: Debian's
trees, disks, and the library (EDGED_SYSTEM_CACHE, else ~/.cache/edged). Prints a table; the exit code is 0 if
all of it passed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.debian.package import PYTHONS, ROOT, Target
from tools.debian.roots import MACHINES, MissingError, require
from tools.vm.device import Device
from tools.vm.image import image, payload
from tools.vm.machine import Machine
from tools.vm.table import Table

SCENARIOS = ("service", "setup", "deaths", "clock", "packages")
NEEDED = {
    "debootstrap": "debootstrap", "qemu-img": "qemu-utils", "mkfs.ext4": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm",
}  # fmt: skip


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tools.vm", description=__doc__)
    parser.add_argument("--release", type=int, choices=PYTHONS, default=12, help="Debian's (default: 12)")
    parser.add_argument("--architecture", choices=MACHINES, default="amd64", help="(default: amd64)")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="(default: all)")
    parser.add_argument("--packages", type=Path, default=ROOT / "dist", help="where they are (default: dist)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there, too, as Markdown")
    arguments = parser.parse_args()
    target = Target(arguments.release, arguments.architecture)
    table = Table()
    try:
        require(NEEDED)
        run(table, target, arguments.packages / target.file_name, arguments.scenario or SCENARIOS)
    except MissingError as error:
        print(f"the service can't be tried here: {error}", file=sys.stderr)
        return 1
    if arguments.table:
        arguments.table.write_text(table.markdown())
    failed = sum(row.fault is not None for row in table.rows)
    print(f"{len(table.rows) - failed} passed, {failed} failed")
    return 0 if table.passed else 1


def run(table: Table, target: Target, package: Path, scenarios: list[str] | tuple[str, ...]) -> None:
    """Fill the table from one machine that goes through the scenarios, one after the other.

    Raises:
        MissingError: there is no such package.
    """
    if not package.exists():
        raise MissingError(f"there is no {package}: make deb")
    where = f"{target.architecture}/{target.release}"
    with tempfile.TemporaryDirectory(prefix="edged-vm-") as directory:
        place = Path(directory)
        brought = place / "brought"
        brought.mkdir()
        shutil.copy(package, brought / "edged.deb")
        _newer(package, brought / "edged-next.deb", place / "unpacked")
        shutil.copy(Path(__file__).with_name("inject.py"), brought)
        subprocess.run(
            [sys.executable, ROOT / "tools/make_tiny_model.py", "--out", brought / "tiny.gguf"], check=True
        )
        payload(brought, place / "payload.img")
        machine = Machine(image(target.release, target.architecture), place, payload=place / "payload.img")
        if not table.row(where, "boots", lambda: machine.__enter__().boot):
            return
        try:
            device = Device(machine)
            for scenario in scenarios:
                module = importlib.import_module(f"tools.vm.scenarios.{scenario}")
                for part in module.PARTS:
                    name = f"{scenario}: {part.replace('_', ' ')}"
                    passed = table.row(where, name, functools.partial(getattr(module, part), device))
                    if not passed and part == "installed":
                        return
        finally:
            machine.cut_power()


def _newer(package: Path, newer: Path, unpacked: Path) -> None:
    """Make the same package with a greater version, to upgrade to."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.M))
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(unpacked), str(newer)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)


if __name__ == "__main__":
    sys.exit(main())
