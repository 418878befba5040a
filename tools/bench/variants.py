"""llama-server's settings: those that may be its best, all with the same cells as edged."""

from __future__ import annotations

from tools.bench.upstream import Settings

Layout = tuple[str, ...]

SPLIT: Layout = ("--no-kv-unified", "-fa", "off")
SPLIT_FLASH: Layout = ("--no-kv-unified", "-fa", "on")
UNIFIED_FLASH: Layout = ("--kv-unified", "-fa", "on")
LAYOUTS = (SPLIT, SPLIT_FLASH, UNIFIED_FLASH)
FEW_SLOTS = 4  # what llama-server takes when nothing is said


def variants(settings: Settings, *, sequences: int, context: int, any_slots: bool) -> list[list[str]]:
    """Return lists of arguments to try, with `sequences` slots or, where any number will do, fewer too."""
    slots = sorted({sequences, min(FEW_SLOTS, sequences)}, reverse=True) if any_slots else [sequences]
    return [
        [*arguments(settings, cells=sequences * context), "--parallel", str(count), *layout]
        for count in slots
        for layout in LAYOUTS
    ]


def arguments(settings: Settings, *, cells: int) -> list[str]:
    """Return what all of llama-server's settings have in common."""
    return [
        "--threads", str(settings.threads), "--threads-batch", str(settings.threads_batch),
        "--ctx-size", str(cells), "--log-verbosity", "1",
    ]  # fmt: skip
