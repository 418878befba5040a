"""What edged is made of besides itself: Python packages, by the hashes that requirements.lock pins."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from pip._vendor.packaging.markers import Marker

from tools.debian.roots import MACHINES

LOCK = Path(__file__).parents[2] / "requirements.lock"
TEST_LOCK = LOCK.with_name("requirements-test.lock")
LIBRARY = "llama-cpp-python"
_UNUSED = {"diskcache"}
"""What the library's Python part would want, of which edged takes the C functions alone (docs/adr/0015)."""

_GLIBC = range(17, 37)
"""2.36 is Debian 12's. pip does not widen a tag: with one too old it silently takes an old version."""


def pinned(python: str, lock: Path = LOCK) -> dict[str, str]:
    """Return a lock's entries, hashes and all, that hold for a Python version, by name."""
    entries = re.findall(
        r"^([a-z0-9-]+)(==[^ ]+)(?: ; (.*?))? \\\n((?: +--hash=.*\n)+)", lock.read_text(), re.M
    )
    here = {"python_version": python, "python_full_version": f"{python}.0"}
    return {
        name: f"{name}{version} \\\n{hashes}"
        for name, version, marker, hashes in entries
        if not marker or Marker(marker).evaluate(here)
    }


def install_wheels(target: Path, python: str, architecture: str, lock: Path = LOCK) -> None:
    """Unpack all wheels of a lock but the library's into `target`, for a Python that need not be here.

    Raises:
        CalledProcessError: pip found none that has a pinned hash and suits; it has said which.
    """
    wanted = [entry for name, entry in pinned(python, lock).items() if name not in {LIBRARY, *_UNUSED}]
    machine = MACHINES[architecture]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in reversed(_GLIBC)]
    platforms += [f"manylinux2014_{machine}"]
    abis = [f"cp{python.replace('.', '')}", "abi3", "none"]
    _pip(
        "install", "--only-binary=:all:", "--no-compile", "--implementation=cp", f"--python-version={python}",
        "--ignore-requires-python",  # it would ask this Python; the markers have said what suits the other
        f"--target={target}", *(f"--platform={each}" for each in platforms),
        *(f"--abi={each}" for each in abis),
        requirements=wanted,
    )  # fmt: skip


def unpack_library(directory: Path) -> Path:
    """Fetch the library's sources, unpack them below `directory` and return where they are.

    Raises:
        CalledProcessError: pip found none that has the pinned hash.
    """
    with tempfile.TemporaryDirectory(dir=directory) as download:
        wanted = [pinned("3.11")[LIBRARY]]
        _pip("download", "--no-binary=:all:", f"--dest={download}", requirements=wanted)
        [archive] = Path(download).iterdir()
        with tarfile.open(archive) as file:
            file.extractall(directory, filter="data")
    return directory / archive.name.removesuffix(".tar.gz")


def _pip(command: str, *arguments: str, requirements: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(requirements)
        file.flush()
        pip = [
            sys.executable,
            "-m",
            "pip",
            command,
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "-r",
            file.name,
        ]
        subprocess.run([*pip, *arguments], check=True)
