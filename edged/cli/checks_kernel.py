"""What the kernel tells of the machine that edged runs on: memory, control group, pressure."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from edged.cli.checks import Check
from edged.cli.kernel_files import counts, number, text
from edged.cli.output import size

_LITTLE_MEMORY = 0.1  # of all that is there
_NEAR_LIMIT = 0.9  # of the group's
_STALLED_PERCENT = 10.0  # of the time, some process waits for memory
_FIRMWARE_LINES = ("boot/firmware/cmdline.txt", "boot/cmdline.txt")


def kernel_checks(root: Path, pid: int | None) -> Iterator[Check]:
    """Judge the machine as far as its kernel tells.

    Args:
        root: of the file system.
        pid: the daemon's; None while there is none.
    """
    yield _memory(root)
    yield _cgroup(root, pid)
    yield _pressure(root)


# --- memory ---


def _memory(root: Path) -> Check:
    figures = {}
    for line in text(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if (words := rest.split()) and words[0].isdecimal():
            figures[name] = int(words[0]) * 1024
    total, available = figures.get("MemTotal", 0), figures.get("MemAvailable")
    if not total or available is None:
        return Check(
            "memory", "warn", "/proc/meminfo can't be read", "mount /proc for edgectl and the daemon"
        )
    says = f"{size(available)} of {size(total)} available{_swap(root, figures)}"
    if available < _LITTLE_MEMORY * total:
        remedy = "a smaller model, model.context, model.sequences; or end other programs"
        return Check("memory", "warn", says, remedy)
    return Check("memory", "ok", says)


def _swap(root: Path, figures: dict[str, int]) -> str:
    total = figures.get("SwapTotal", 0)
    if not total:
        return ", no swap"
    devices = [line.split()[0] for line in text(root / "proc/swaps").splitlines()[1:] if line.strip()]
    kind = " on zram, which is memory itself" if any("zram" in device for device in devices) else ""
    return f", {size(figures.get('SwapFree', 0))} of {size(total)} swap free{kind}"


# --- control group ---


def _cgroup(root: Path, pid: int | None) -> Check:
    lines = text(root / f"proc/{pid or 'self'}/cgroup").splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if any("memory" in line.split(":")[1].split(",") for line in lines if line.count(":") >= 2):
        says = "the memory controller is of version 1, so the daemon does not see its limit"
        return Check("cgroup", "warn", says, "start Linux with systemd.unified_cgroup_hierarchy=1")
    if own is None:
        says = "there is no control group of version 2, so the daemon does not see its limit"
        return Check("cgroup", "warn", says, "start Linux with systemd.unified_cgroup_hierarchy=1")
    if _is_memory_off(root):
        says = "the kernel counts no memory for control groups, so MemoryMax and MemoryHigh have no effect"
        return Check("cgroup", "warn", says, _on_the_line(root, "cgroup_enable=memory"))
    group = root / "sys/fs/cgroup" / own.strip("/")
    used = number(group / "memory.current")
    if used is None:
        if own == "/":
            return Check("cgroup", "ok", "the daemon runs in the root group, which has no limit")
        says = f"memory is not counted for the daemon's group {own}"
        return Check("cgroup", "warn", says, "MemoryAccounting=yes in the unit: systemctl edit edged")
    return _limit(group, used)


def _limit(group: Path, used: int) -> Check:
    limit = number(group / "memory.max")
    kills = counts(group / "memory.events").get("oom_kill", 0)
    working = used - counts(group / "memory.stat").get("inactive_file", 0)
    says = f"{size(working)} in use, " + (f"limit {size(limit)}" if limit is not None else "no limit")
    if kills:
        remedy = "raise MemoryMax (systemctl edit edged), or take a smaller model, context or model.sequences"
        return Check("cgroup", "warn", f"{says}; {kills} processes were killed for want of memory", remedy)
    if limit is not None and working > _NEAR_LIMIT * limit:
        remedy = "raise MemoryMax: systemctl edit edged; or take a smaller model, context or model.sequences"
        return Check("cgroup", "warn", says, remedy)
    return Check("cgroup", "ok", says)


def _is_memory_off(root: Path) -> bool:
    controllers = root / "sys/fs/cgroup/cgroup.controllers"
    if controllers.exists():
        return "memory" not in text(controllers).split()
    for line in text(root / "proc/cgroups").splitlines():
        words = line.split()
        if words and words[0] == "memory":
            return words[-1] == "0"
    return False


# --- pressure ---


def _pressure(root: Path) -> Check:
    path = root / "proc/pressure/memory"
    try:
        told = path.read_text(errors="replace")
    except OSError as error:
        is_off = error.errno == errno.EOPNOTSUPP or "psi=1" not in text(root / "proc/cmdline").split()
        says = "the kernel does not tell how long programs wait for memory (PSI)"
        remedy = _on_the_line(root, "psi=1") if is_off else "another kernel: this one has no CONFIG_PSI"
        return Check("psi", "warn", says, remedy)
    for line in told.splitlines():
        fields = dict(word.partition("=")[::2] for word in line.split()[1:])
        if line.startswith("some"):
            try:
                stalled = float(fields["avg60"])
            except (KeyError, ValueError):
                break
            says = f"in the last minute some program waited for memory {stalled:.1f} % of the time"
            if stalled >= _STALLED_PERCENT:
                remedy = "memory is too small for what runs: a smaller model, or end other programs"
                return Check("psi", "warn", says, remedy)
            return Check("psi", "ok", says)
    return Check("psi", "warn", f"{path} can't be understood", "report it, with the file's text")


# --- remedies ---


def _on_the_line(root: Path, word: str) -> str:
    """Say where a word must stand on the kernel's command line."""
    if (root / "run/systemd/container").exists() or (root / ".dockerenv").exists():
        return f"this is a container: its host's kernel must be started with {word}"
    for line in _FIRMWARE_LINES:
        if (root / line).exists():
            return f"sudo sed -i '1s/$/ {word}/' /{line}, then reboot"
    return f"start Linux with {word} (GRUB_CMDLINE_LINUX in /etc/default/grub, update-grub), then reboot"
