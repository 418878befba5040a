"""The state of memory in words and figures, for people."""

from __future__ import annotations

from typing import Any

from edged.watch.memory.policy import MemoryState


def reason(state: MemoryState) -> str:
    """Return in one line what asked for the level, with figures."""
    reading = state.reading
    if reading is None or state.cause == "blind":
        return "/proc/meminfo can't be read"
    machine, group = reading.machine, reading.group
    left = f"{_mega(machine.available)} of {_mega(machine.total)} of memory are available"
    match state.cause:
        case "group" if group and group.available is not None and group.limit is not None:
            return f"{_mega(group.available)} are left of the service's limit of {_mega(group.limit)}"
        case "trend":
            trends = [trend.falling for trend in (state.machine_trend, state.group_trend) if trend]
            return f"{left}, and others take {_mega(max(trends, default=0))} more each second"
        case "pressure":
            full = [one.full for one in (reading.machine_pressure, reading.group_pressure) if one]
            return f"{left}, and for {max(full, default=0):.0f} % of the time nothing got on for want of it"
        case "faults":
            return f"{left}, and the engine waits for {state.fault_rate:.0f} pages a second to be read"
        case "oom_kill":
            return f"{left}, and the kernel has killed a process of the service for want of it"
    return f"{left}, {_mega(max(0, reading.spare))} without the weights in use"


def figures(state: MemoryState) -> dict[str, Any]:
    """Return what status and events say; what is not known is left out."""
    found: dict[str, Any] = {"cause": state.cause}
    if (reading := state.reading) is None:
        return found
    machine, group, engine = reading.machine, reading.group, reading.engine
    found |= {
        "total_bytes": machine.total,
        "available_bytes": machine.available,
        "spare_bytes": max(0, reading.spare),
        "swap_free_bytes": machine.swap_free,
    }
    if group and group.limit is not None:
        found |= {"limit_bytes": group.limit, "limit_available_bytes": group.available}
    if reading.zram:
        found |= {"zram_stored_bytes": reading.zram.stored, "zram_used_bytes": reading.zram.used}
    if reading.machine_pressure:
        found["pressure_full_percent"] = reading.machine_pressure.full
    if reading.group_pressure:
        found["group_pressure_full_percent"] = reading.group_pressure.full
    if engine:
        found |= {
            "engine_anonymous_bytes": engine.anonymous,
            "engine_mapped_bytes": engine.mapped,
            "engine_swapped_bytes": engine.swapped,
            "engine_major_faults_per_second": round(state.fault_rate, 1),
        }
    return found


def _mega(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
