"""Disks to boot: a Debian with what the tests of the service need, and the host's agent in it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.debian.roots import cache, debian

DISK_BYTES = 3 << 30
AGENT = Path(__file__).with_name("agent.py")

PACKAGES = (
    "systemd", "systemd-sysv", "udev", "kmod", "procps", "initramfs-tools", "zstd", "python3", "libgomp1",
    "libstdc++6", "init-system-helpers", "curl",
)  # fmt: skip

# Small, as an emulated processor unpacks it at each boot.
_FILES = {
    "/etc/initramfs-tools/conf.d/modules": "MODULES=list\nCOMPRESS=lz4\n",
    "/usr/share/initramfs-tools/modules.d/disk": "virtio_pci\nvirtio_mmio\nvirtio_blk\next4\n",
}
_AGENT_UNIT = """\
[Unit]
Description=What the host commands
DefaultDependencies=no
After=systemd-udev-trigger.service local-fs.target
[Service]
ExecStartPre=/bin/sh -c 'modprobe virtio_console; udevadm settle'
ExecStart=/usr/bin/python3 -I /usr/local/lib/agent.py
Restart=always
OOMScoreAdjust=-1000
[Install]
WantedBy=sysinit.target
"""
HOST = "10.0.2.2"
"""Where a machine finds its host."""
_NETWORK = """\
[Match]
Name=e*
[Network]
Address=10.0.2.15/24
LinkLocalAddressing=no
"""
# Nobody logs in, and timers would disturb.
_MASKED = (
    "getty@.service", "getty-static.service", "serial-getty@.service", "apt-daily.timer",
    "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer",
    "systemd-tmpfiles-clean.timer", "e2scrub_reap.service", "man-db.timer",
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """What a machine boots from.

    Attributes:
        disk: a raw disk with one file system; never written to.
    """

    release: int
    architecture: str
    disk: Path
    kernel: Path
    initrd: Path


def image(release: int, architecture: str) -> Image:
    """Return the image of a Debian release, made now if there is none.

    Raises:
        MissingError: what it takes is not here.
        CalledProcessError: a tool failed; it has said why.
    """
    root = system(release, architecture)
    put_in = hashlib.sha256(AGENT.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:8]
    made = Image(
        release,
        architecture,
        disk=cache() / "images" / f"{root.name}-{put_in}.img",
        kernel=next(root.glob("boot/vmlinuz-*")),
        initrd=next(root.glob("boot/initrd.img-*")),
    )
    if not made.disk.exists():
        for outdated in made.disk.parent.glob(f"{root.name}*.img"):
            outdated.unlink()
        _make_disk(root, made.disk)
    return made


def system(release: int, architecture: str) -> Path:
    """Return what is on the disk, as a directory.

    Raises:
        MissingError: what it takes is not here.
        CalledProcessError: a tool failed; it has said why.
    """
    packages = (*PACKAGES, "lz4", f"linux-image-cloud-{architecture}")
    return debian("vm", release, architecture, packages, _FILES)


def payload(directory: Path, disk: Path) -> None:
    """Make a disk of a directory's files, labelled payload."""
    megabytes = sum(path.stat().st_size for path in directory.rglob("*")) // 1_000_000 + 16
    _make_file_system(directory, disk, "payload", int(megabytes * 1.1) << 20)


def _make_disk(root: Path, disk: Path) -> None:
    copy = disk.with_suffix(".tree")
    shutil.rmtree(copy, ignore_errors=True)
    disk.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", root, copy], check=True)
    shutil.copy(AGENT, copy / "usr/local/lib/agent.py")
    units = copy / "etc/systemd/system"
    (units / "agent.service").write_text(_AGENT_UNIT)
    wants = units / "sysinit.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "agent.service").symlink_to("../agent.service")
    (copy / "etc/systemd/network/host.network").write_text(_NETWORK)
    networkd = "systemd-networkd.service"
    (units / "multi-user.target.wants" / networkd).symlink_to(f"/usr/lib/systemd/system/{networkd}")
    for unit in _MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (copy / "etc/hostname").write_text("device\n")
    (copy / "etc/hosts").write_text("127.0.0.1 localhost device\n")
    (copy / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (copy / "etc/machine-id").write_text("")
    for path in (copy / "boot").glob("*"):  # the host hands them over
        path.unlink()
    _make_file_system(copy, disk.with_suffix(".making"), "root", DISK_BYTES)
    disk.with_suffix(".making").rename(disk)
    shutil.rmtree(copy)


def _make_file_system(directory: Path, disk: Path, label: str, size: int) -> None:
    with disk.open("wb") as file:
        file.truncate(size)
    command = ["/usr/sbin/mkfs.ext4", "-q", "-F", "-L", label, "-d", directory, disk]
    subprocess.run(list(map(str, command)), check=True)
