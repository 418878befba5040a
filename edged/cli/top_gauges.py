"""The gauges of `edgectl top`: each a value with the limit that it is held against."""

from __future__ import annotations

from typing import NamedTuple

from edged.cli.fields import number, text
from edged.cli.output import size
from edged.cli.top_source import Fields, Look

RED, YELLOW = "31", "33"
_SCALE = 50.0  # degrees up to the target
LEVEL_STYLES = {"ok": "", "warn": YELLOW, "shed": YELLOW, "evict": RED, "critical": RED}
HEAT_STYLES = {"governing": YELLOW, "distrusting": YELLOW, "too_hot": RED}


class Gauge(NamedTuple):
    """One of them.

    Attributes:
        name: what it shows.
        value: what is drawn; None: not known.
        said: the value in words.
        low: the lower end of the scale.
        high: its upper end, above `low`.
        limit: what the value is held against, in words.
        style: as lines of the screen have one.
    """

    name: str
    value: float | None
    said: str
    low: float
    high: float
    limit: str
    style: str = ""


def gauges(look: Look, speed: float | None, fastest: float) -> list[Gauge]:
    """Return the gauges for what the daemon said.

    Args:
        look: what it said.
        speed: tokens a second of all answers together; None: not known yet.
        fastest: the most that it was.
    """
    said = "-" if speed is None else f"{speed:.1f}"
    tokens = Gauge("tokens/s", speed, said, 0, max(fastest, 1.0), f"fastest {fastest:.1f}")
    return [_heat(look.status), _memory(look.status), tokens, _queue(look.status)]


def _heat(status: Fields) -> Gauge:
    celsius, target = (number(status, "watch", "thermal", f"{name}celsius") for name in ("", "target_"))
    if celsius is None or target is None:
        return Gauge("heat", None, "-", 0, 1, "no thermometer")
    style = HEAT_STYLES.get(text(status, "watch", "thermal", "state") or "", "")
    return Gauge(
        "heat", celsius, f"{celsius:.1f} °C", target - _SCALE, target, f"target {target:g} °C", style
    )


def _memory(status: Fields) -> Gauge:
    """Return how much is left, by whichever is nearer to its end: the machine or the control group."""
    nearest: tuple[float, float, float, str] | None = None
    for cause, prefix, whose in (("available", "", ""), ("group", "limit_", "the limit of ")):
        free = number(status, "watch", "memory", f"{prefix}available_bytes")
        total = number(status, "watch", "memory", f"{prefix or 'total_'}bytes")
        least = number(status, "watch", "memory", "evicts_below_bytes", cause)
        if free is None or total is None or least is None:
            continue
        if nearest is None or free - least < nearest[0] - nearest[2]:
            nearest = free, total, least, whose
    if nearest is None:
        return Gauge("memory", None, "-", 0, 1, "not known")
    free, total, least, whose = nearest
    style = LEVEL_STYLES.get(text(status, "watch", "memory", "level") or "", "")
    limit = f"of {whose}{size(int(total))} left, evict at {size(int(least))}"
    return Gauge("memory", free, size(int(free)), least, max(total, least + 1), limit, style)


def _queue(status: Fields) -> Gauge:
    queued, running = (number(status, "requests", name) for name in ("queued", "running"))
    most, at_once = number(status, "limits", "queue"), number(status, "model", "sequences")
    if queued is None or most is None:
        return Gauge("queue", None, "-", 0, 1, "not known")
    limit = f"of {most:.0f} wait, {running or 0:.0f}{f' of {at_once:.0f}' if at_once else ''} run"
    style = RED if queued >= most else ""
    return Gauge("queue", queued, f"{queued:.0f}", 0, max(most, 1), limit, style)
