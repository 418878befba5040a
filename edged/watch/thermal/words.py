"""Why the governor does what it does, for people."""

from __future__ import annotations

from edged.watch.thermal.governor import Decision
from edged.watch.thermal.reading import ThermalReading

_FAULTS = {
    "stuck": "the thermometer has not moved for long",
    "jumped": "the thermometer jumps",
    "vanished": "the thermometer can't be read",
    "contradicted": "the thermometer says less than the firmware acts on",
    None: "the thermometer is not believed",
}


def reason(
    decision: Decision, reading: ThermalReading, target: float, *, most_threads: int, ceiling: float
) -> str | None:
    """Return why computing is held back, with figures; None where it isn't.

    Args:
        decision: what is in force.
        reading: what it follows from.
        target: degrees that are not to be passed.
        most_threads: that the engine may use.
        ceiling: the most effort that the energy budget allows.
    """
    if decision.threads >= most_threads and decision.duty >= 1 and not decision.refuse:
        return None
    causes = []
    if decision.state == "distrusting":
        causes.append(_FAULTS[decision.fault])
    elif decision.state in ("governing", "too_hot") and reading.celsius is not None:
        causes.append(f"{reading.celsius:.1f} °C, the target is {target:g} °C")
    if reading.flags is not None and reading.flags.under_voltage:
        causes.append("the power supply sags")
    if ceiling < 1 and decision.effort >= ceiling:
        causes.append(f"the energy budget allows {ceiling:.0%} of full work now")
    threads = f"{decision.threads} of {most_threads} threads, {decision.duty:.0%} of the time"
    return f"{'; '.join(causes)}: {threads}" if causes else threads
