"""The service on a real systemd: install edged's package on Debian in virtual machines and show what holds.

Each machine is emulated, without KVM, with two processors and 1 GB. What is slow to make is kept: Debian's
trees, disks, and the library (EDGED_SYSTEM_CACHE, else ~/.cache/edged). Prints a table; the exit code is 0 if
all of it passed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
from pathlib import Path

from tools.debian.package import PYTHONS, ROOT, Target
from tools.debian.roots import MACHINES, MissingError, require
from tools.vm import power
from tools.vm.stand import GoneError, Stand
from tools.vm.table import Table

SCENARIOS = ("stock", "power", "service", "setup", "deaths", "memory", "clock", "packages")
NEEDED = {
    "debootstrap": "debootstrap", "qemu-img": "qemu-utils", "mkfs.ext4": "e2fsprogs",
    "mosquitto": "mosquitto",
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
    parser.add_argument("--cuts", type=int, default=3, help="of the power (default: 3)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="for them (default: any)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # neither machine nor broker outlives this
    target = Target(arguments.release, arguments.architecture)
    table = Table()
    try:
        require(NEEDED)
        with tempfile.TemporaryDirectory(prefix="edged-vm-") as directory:
            package = arguments.packages / target.file_name
            with Stand(table, target, package, Path(directory)) as stand, contextlib.suppress(GoneError):
                chosen = set(arguments.scenario or SCENARIOS)
                for scenario in filter(chosen.__contains__, SCENARIOS):  # the last one leaves nothing to try
                    if scenario == "power":
                        power.cut(stand, arguments.cuts, arguments.seed)
                    else:
                        stand.show(scenario)
    except MissingError as error:
        print(f"the service can't be tried here: {error}", file=sys.stderr)
        return 1
    if arguments.table:
        arguments.table.write_text(table.markdown())
    failed = sum(row.fault is not None for row in table.rows)
    print(f"{len(table.rows) - failed} passed, {failed} failed")
    return 0 if table.passed else 1


if __name__ == "__main__":
    sys.exit(main())
