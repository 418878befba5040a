"""Reads the snapshot's own documentation: what its fields are called, what they hold and what they mean."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from edged.telemetry.snapshot import Distribution, Snapshot

_ENTRY = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field that holds a figure or a word.

    Attributes:
        path: its name, after those of the parts around it.
        type: what it holds, null apart.
        optional: whether it may be null.
        meaning: one sentence.
        label: what the keys of a mapping are.
    """

    path: tuple[str, ...]
    type: Any
    optional: bool
    meaning: str
    label: str | None = None

    @property
    def name(self) -> str:
        """Return the path in one word."""
        return "_".join(self.path)


def leaves(part: type = Snapshot, prefix: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yield every field of a part and of the parts in it; a distribution is one field."""
    hints, said = get_type_hints(part), meanings(part)
    for field in fields(part):
        kind, optional = unwrapped(hints[field.name])
        path = (*prefix, field.name)
        if is_dataclass(kind) and kind is not Distribution:
            yield from leaves(kind, path)  # type: ignore[arg-type]
        else:
            yield Leaf(path, kind, optional, said[field.name], field.metadata.get("label"))


def meanings(part: type) -> dict[str, str]:
    """Return what the docstring of a part says of each of its attributes."""
    found: dict[str, str] = {}
    name = ""
    for line in (inspect.getdoc(part) or "").partition("Attributes:\n")[2].splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def unwrapped(hint: Any) -> tuple[Any, bool]:
    """Return a type without its None, and whether it had one."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    [kind] = [part for part in get_args(hint) if part is not type(None)]
    return kind, True
