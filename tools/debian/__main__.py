"""Make edged's Debian packages: for amd64 and arm64, for Debian 12 and 13.

The library is built for every processor of an architecture once, in a Debian 12 that debootstrap makes, and
kept, as that Debian is. Two runs over the same commit make the same bytes. Afterwards lintian looks at each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tools.debian.native import build_root
from tools.debian.package import PYTHONS, ROOT, Target, build
from tools.debian.roots import MACHINES, MissingError, inside, require

NEEDED = {"debootstrap": "debootstrap", "dpkg-deb": "dpkg", "git": "git", "chroot": "coreutils"}


def main() -> int:
    """Build what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tools.debian", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="where the packages go (default: dist)"
    )
    parser.add_argument(
        "--release", type=int, choices=PYTHONS, action="append", help="Debian's (default: all)"
    )
    parser.add_argument("--architecture", choices=MACHINES, action="append", help="(default: all)")
    arguments = parser.parse_args()
    try:
        require(NEEDED)
        for release in arguments.release or PYTHONS:
            for architecture in arguments.architecture or MACHINES:
                package = build(Target(release, architecture), arguments.out, _epoch())
                print(f"{package}  {package.stat().st_size / 1e6:.1f} MB", flush=True)
                _lint(package)
    except MissingError as error:
        print(f"the packages can't be made: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"the packages can't be made: {error}", file=sys.stderr)
        return 1
    return 0


def _epoch() -> int:
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


def _lint(package: Path) -> None:
    root = build_root()
    copy = root / "build" / package.name
    copy.write_bytes(package.read_bytes())
    print(
        inside(
            root,
            "lintian",
            "--allow-root",
            "--fail-on=error",
            "--tag-display-limit=0",
            f"/build/{package.name}",
        )
    )
    copy.unlink()


if __name__ == "__main__":
    sys.exit(main())
