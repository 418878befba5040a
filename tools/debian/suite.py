"""Run the test suite on a Debian's own Python, with the library as it is in the package.

    python -m tools.debian.suite [--release 13] [what pytest is to do…]

Without a word for pytest it runs the fast tests. Debian is made by debootstrap and kept; it sees the models
that EDGED_TEST_MODELS names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools.debian.native import native
from tools.debian.package import PYTHONS, ROOT, ours
from tools.debian.roots import MissingError, debian, require
from tools.debian.sources import TEST_LOCK, install_wheels

PACKAGES = (
    "python3", "libgomp1", "libstdc++6", "mosquitto", "mosquitto-clients", "openssl", "git", "procps",
    "ca-certificates", "systemd", "curl",
)  # fmt: skip
_FAST = ("-q", "-m", "not slow")
# All in a namespace of its own: nothing is left mounted.
_RUN = """
set -e
mount --bind "$2" "$1/suite/models"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --rbind /sys "$1/sys"
exec chroot "$1" sh -c 'cd /suite/edged && exec python3 -m pytest "$@"' sh "${@:3}"
"""


def main() -> int:
    """Run it and return pytest's exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.debian.suite", description=__doc__)
    parser.add_argument("--release", type=int, choices=PYTHONS, default=13, help="Debian's (default: 13)")
    arguments, pytest = parser.parse_known_args()
    try:
        require({"debootstrap": "debootstrap", "unshare": "util-linux"})
        root = debian("suite", arguments.release, "amd64", PACKAGES)
    except MissingError as error:
        print(f"the tests can't be run there: {error}", file=sys.stderr)
        return 1
    suite = root / "suite"
    shutil.rmtree(suite, ignore_errors=True)
    packages = suite / "packages"
    install_wheels(packages, PYTHONS[arguments.release], "amd64", TEST_LOCK)
    shutil.copytree(native("amd64"), packages, dirs_exist_ok=True)
    for name in ours("."):
        (suite / "edged" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, suite / "edged" / name)
    (suite / "models").mkdir()
    models = Path(os.environ.get("EDGED_TEST_MODELS") or ROOT / ".cache/models")
    models.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": "/suite/packages/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": "/suite/edged:/suite/packages",
        "EDGED_TEST_MODELS": "/suite/models",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }
    command = ["unshare", "--mount", "bash", "-c", _RUN, "bash", root, models, *(pytest or _FAST)]
    return subprocess.run(list(map(str, command)), env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
