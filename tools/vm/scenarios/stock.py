"""The third, where the kernel has neither memory's control group nor PSI, as Raspberry Pi OS boots."""

from __future__ import annotations

from tools.vm.device import Device
from tools.vm.scenarios.memory import of_the_machine
from tools.vm.table import show

KERNEL = ("cgroup_disable=memory", "psi=0")
PARTS = ("sources", "of_the_machine")


def sources(device: Device) -> str:
    """Neither is there, and edged says so."""
    device.ready()
    found = device.status()["watch"]["memory"]["sources"]
    show(found == ["meminfo"], f"it reads {found}")
    doctor = device.machine.run("edgectl doctor").out
    show("cgroup_enable=memory" in doctor, f"doctor does not say what turns it on: {doctor}")
    return "meminfo alone; doctor says what turns the rest on"


__all__ = ["of_the_machine"]
