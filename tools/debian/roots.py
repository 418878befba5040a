"""Debian systems in directories, made by debootstrap once and kept between runs.

They lie in `<cache>/roots`; the cache is ~/.cache/edged, or where EDGED_SYSTEM_CACHE says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

CODENAMES = {12: "bookworm", 13: "trixie"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names of the processors that edged is packaged for, with the kernel's."""


class MissingError(Exception):
    """Something that the work needs is not here; the message names it and how to get it."""


def cache() -> Path:
    """Return the directory of what is kept between runs."""
    return Path(os.environ.get("EDGED_SYSTEM_CACHE") or Path.home() / ".cache/edged")


def require(commands: dict[str, str], *, root: bool = True) -> None:
    """Check that the commands are here, and that this is root where that is needed.

    Args:
        commands: each with the Debian package that brings it.
        root: whether chroot and debootstrap are used.

    Raises:
        MissingError: naming all that is missing.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = sorted(
        {package for command, package in commands.items() if not shutil.which(command, path=path)}
    )
    if missing:
        raise MissingError(f"install what is missing: apt-get install {' '.join(missing)}")
    if root and os.geteuid() != 0:
        raise MissingError(
            "this makes whole Debian systems by debootstrap and chroot, and so wants root: use sudo"
        )


def require_foreign(architecture: str) -> None:
    """Check that programs of `architecture` run here, be it in an emulator.

    Raises:
        MissingError: they don't; with what makes them.
    """
    machine = MACHINES[architecture]
    if machine == os.uname().machine:
        return
    registered = Path(f"/proc/sys/fs/binfmt_misc/qemu-{machine}")
    if not registered.exists() or "enabled" not in registered.read_text():
        raise MissingError(
            f"programs for {architecture} don't run here: apt-get install qemu-user-static binfmt-support; "
            "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc; "
            f"update-binfmts --enable qemu-{machine}"
        )


def debian(
    purpose: str,
    release: int,
    architecture: str,
    packages: Sequence[str],
    files: Mapping[str, str] | None = None,
) -> Path:
    """Return a system with these packages, made now if there is none of just these.

    Args:
        purpose: names it among others.
        release: Debian's, 12 or 13.
        architecture: amd64 or arm64.
        packages: beside Debian's essential ones.
        files: texts by path, there before the packages are installed.

    Raises:
        MissingError: programs of that architecture don't run here.
        CalledProcessError: debootstrap or apt failed; they have said why.
    """
    require_foreign(architecture)
    files = files or {}
    asked = hashlib.sha256(repr((sorted(packages), sorted(files.items()))).encode()).hexdigest()[:8]
    root = cache() / "roots" / f"{purpose}-{release}-{architecture}-{asked}"
    if root.exists():
        return root
    making = root.with_name(f"{root.name}.making")
    if making.exists():
        clear(making)
    making.mkdir(parents=True)
    print(f"making Debian {release} for {architecture}, with {len(packages)} packages: minutes", flush=True)
    options = [f"--arch={architecture}", "--variant=minbase"]
    _run(["debootstrap", *options, CODENAMES[release], making])
    shutil.copy("/etc/resolv.conf", making / "etc/resolv.conf")
    for path, text in files.items():
        target = making / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    # debootstrap itself takes many packages in a wrong order, and apt does not.
    inside(making, "apt-get", "-q", "update")
    inside(making, "apt-get", "-q", "-y", "--no-install-recommends", "install", *packages)
    inside(making, "apt-get", "clean")
    making.rename(root)
    return root


def clear(root: Path) -> None:
    """Remove a system, one whose making was interrupted too: debootstrap then leaves /proc mounted in it."""
    for place in mounted_below(root, Path("/proc/self/mounts").read_text()):
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(root)


def mounted_below(root: Path, mounts: str) -> list[str]:
    """Return what is mounted in a directory, in the order in which it can be unmounted.

    Args:
        root: the directory.
        mounts: the text of /proc/self/mounts, in which a blank is written in octal.
    """
    places = [line.split(" ")[1].encode().decode("unicode_escape") for line in mounts.splitlines()]
    return [place for place in reversed(places) if Path(place).is_relative_to(root.resolve())]


def inside(root: Path, *command: object, cwd: str = "/") -> str:
    """Run a command in a system and return what it printed.

    Raises:
        CalledProcessError: it failed; its output is shown.
    """
    shell = 'cd "$1" && shift && exec "$@"'
    return _run(["chroot", root, "sh", "-c", shell, "sh", cwd, *command])


def _run(command: Iterable[object]) -> str:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    environment |= {name: os.environ[name] for name in ("SOURCE_DATE_EPOCH",) if name in os.environ}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout[-3000:], done.stderr[-3000:], sep="\n", flush=True)
        done.check_returncode()
    return done.stdout
