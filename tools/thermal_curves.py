"""Draws what the governor does on made-up boards, beside no governor and the firmware's own throttling.

    python -m tools.thermal_curves DIRECTORY

writes a PNG for each device and prints a table of figures: all of a model, in virtual time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tools.curves import Curve, Panel, draw
from tools.thermal.model import DEVICES, Device
from tools.thermal.simulation import Run, airs, plant_of, simulate, steps

_WARMER_AT, _SECONDS = 1200, 2700
_AIR, _WARMER = 25, 40


def curves(device: Device, path: Path) -> None:
    """Draw 45 minutes' work in air of 25 degrees that becomes 40 after twenty minutes."""
    air = steps((0, _AIR), (_WARMER_AT, _WARMER))
    runs = {
        "governed": simulate(device, _SECONDS, air=air),
        "firmware alone": simulate(device, _SECONDS, air=air, governed=False),
        "nothing": simulate(device, _SECONDS, air=air, governed=False, firmware=False),
    }
    target = plant_of(device).target
    draw(
        path,
        f"{device.name}, always at work; air {_AIR} °C, from minute {_WARMER_AT // 60} on {_WARMER} °C",
        [
            Panel("°C", [_curve(name, run, run.celsius) for name, run in runs.items()], target),
            Panel("tokens/s", [_curve(name, run, run.tokens) for name, run in runs.items()]),
        ],
    )


def table() -> str:
    """Return what the governor comes to at every temperature of the air, in Markdown."""
    lines = [
        "| Device | air °C | warmest °C | swing °C | threads | tokens/s | best | share | ungoverned |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for device in DEVICES:
        for air in airs():
            run = simulate(device, 2400, air=lambda _, air=air: air)  # type: ignore[misc]
            alone = simulate(device, 2400, air=lambda _, air=air: air, governed=False)  # type: ignore[misc]
            lines.append(_row(device, air, run, alone.since(1200)))
    return "\n".join(lines)


def _row(device: Device, air: float, run: Run, alone: Run) -> str:
    settled = run.since(1200)
    best = device.best_constant(air, plant_of(device).target)
    share = f"{settled.speed / best:.2f}" if best else "none may work"
    cells = (
        device.name,
        f"{air:g}",
        f"{max(run.celsius):.1f}",
        f"{settled.swing:.1f}",
        str(settled.governors[-1].decision.threads),
        f"{settled.speed:.1f}",
        f"{best:.1f}",
        share,
        f"{alone.speed:.1f} at {sum(alone.celsius) / len(alone.celsius):.0f} °C",
    )
    return f"| {' | '.join(cells)} |"


def _thinned(values: Sequence[float], each: int = 16) -> list[float]:
    return [sum(part) / len(part) for i in range(0, len(values), each) if (part := values[i : i + each])]


def _curve(name: str, run: Run, values: Sequence[float]) -> Curve:
    return Curve(name, [seconds / 60 for seconds in run.seconds[::16]], _thinned(values))


def main(arguments: Sequence[str]) -> int:
    """Write the charts into the directory named and print the table."""
    if len(arguments) != 1:
        print("usage: python -m tools.thermal_curves DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    for device in DEVICES:
        name = device.name.lower().replace(" ", "-")
        curves(device, directory / f"thermal-{name}.png")
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
