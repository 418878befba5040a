"""The arm64 package on emulated processors: which build of the kernels it takes there, and what it answers.

    python -m tools.processors PACKAGE.deb MODEL.gguf

Each processor is emulated by qemu-user, and asked twice. Prints a table; the exit code is 0 if each took the
build that is right for it, answered sensibly, and the same both times.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.debian.roots import MissingError, inside, require
from tools.vm.image import system
from tools.vm.table import Table, show

BUILDS = {
    "cortex-a53": "armv8.0_1",  # Pi 3B+, Zero 2
    "cortex-a72": "armv8.0_1",  # Pi 4
    "cortex-a76": "armv8.2_2",  # Pi 5
    "max": "armv8.6_2",
}
ANSWER = "Paris"
_HERE = Path(__file__).parent


def main() -> int:
    """Ask on the processors."""
    parser = argparse.ArgumentParser(prog="python -m tools.processors", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--processor", choices=BUILDS, action="append", help="(default: all)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write the table there, too, as Markdown")
    arguments = parser.parse_args()
    found = re.search(r"~deb(\d+)u\d+_arm64\.deb$", arguments.package.name)
    if found is None:
        parser.error("a package for arm64 is needed")
    try:
        require({"dpkg-deb": "dpkg", "debootstrap": "debootstrap"})
        root = system(int(found[1]), "arm64")
    except MissingError as error:
        print(f"nothing can be emulated here: {error}", file=sys.stderr)
        return 1
    table, place = Table(), root / "opt/edged"
    try:
        subprocess.run(["dpkg-deb", "--extract", arguments.package, place], check=True)
        shutil.copy(_HERE / "answer.py", place)
        shutil.copy(arguments.model, place / "model.gguf")
        for processor in arguments.processor or BUILDS:
            table.row(f"arm64/{found[1]}", f"processor: {processor}", functools.partial(ask, root, processor))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if arguments.table:
        arguments.table.write_text(table.markdown())
    return 0 if table.passed else 1


def ask(root: Path, processor: str) -> str:
    """Ask twice on one processor."""
    python = next(root.glob("opt/edged/usr/lib/edged/lib/python3*"))
    command = [
        "env", f"QEMU_CPU={processor}", f"PYTHONPATH=/{python.relative_to(root)}/site-packages",
        f"/usr/bin/{python.name}", "-P", "/opt/edged/answer.py", "/opt/edged/model.gguf",
    ]  # fmt: skip
    first, second = (json.loads(inside(root, *command)) for _ in range(2))
    show(first["build"] == BUILDS[processor], f"it took {first['build']}, not {BUILDS[processor]}")
    show(ANSWER in first["answer"], f"it answered {first['answer']!r}")
    show(first["answer"] == second["answer"], f"{first['answer']!r}, and then {second['answer']!r}")
    speed = max(first["tokens_per_second"], second["tokens_per_second"])
    return f"{first['build']} ({' '.join(first['kernels'])}): {first['answer']!r}, {speed:.1f} tokens/s"


if __name__ == "__main__":
    sys.exit(main())
