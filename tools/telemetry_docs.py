"""Write what documents the telemetry out of the snapshot's docstrings: docs/telemetry.md and its JSON Schema.

`make docs` runs it; a test compares, so that neither can drift from the code.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter

from edged.telemetry import snapshot
from edged.telemetry.alarms import RULES
from edged.telemetry.describe import Leaf, leaves, meanings
from edged.telemetry.metrics import names
from edged.telemetry.snapshot import Distribution, Snapshot

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "docs/telemetry.md"
SCHEMA = ROOT / "docs/telemetry.schema.json"

_TABLES = re.compile(r"(?<=<!-- fields -->\n).*(?=<!-- end of fields -->)", re.DOTALL)
_ALARMS = re.compile(r"(?<=<!-- alarms -->\n).*(?=<!-- end of alarms -->)", re.DOTALL)
_TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def fields() -> str:
    """Return the tables of docs/telemetry.md, one for each part of the snapshot."""
    by_part: dict[tuple[str, ...], list[Leaf]] = {}
    for leaf in leaves():
        by_part.setdefault(leaf.path[:-1], []).append(leaf)
    lines: list[str] = []
    for part, found in by_part.items():
        lines += ["", f"### {'.'.join(part) or 'At the top'}", ""]
        lines += ["| Field | Holds | Metric | Meaning |", "| --- | --- | --- | --- |"]
        for leaf in found:
            cells = (f"`{leaf.path[-1]}`", _holds(leaf), _metric(leaf), leaf.meaning)
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def alarms() -> str:
    """Return the table of alarms."""
    lines = ["", "| Alarm | Raised | Cleared |", "| --- | --- | --- |"]
    lines += [f"| `{rule.type}` | {rule.raised} | {rule.cleared} |" for rule in RULES]
    return "\n".join([*lines, "", ""])


def manual(text: str) -> str:
    """Return the manual with its tables renewed."""
    return _ALARMS.sub(lambda _: alarms(), _TABLES.sub(lambda _: fields(), text))


def schema() -> str:
    """Return the JSON Schema of a snapshot."""
    tree = TypeAdapter(Snapshot).json_schema(mode="serialization")
    parts = {name: part for name, part in vars(snapshot).items() if inspect.isclass(part)}
    for name, definition in {**tree["$defs"], "Snapshot": tree}.items():
        said = meanings(parts[name])
        definition["description"] = (inspect.getdoc(parts[name]) or "").partition("\n")[0]
        definition["additionalProperties"] = False
        for field, property in definition["properties"].items():
            _describe(property, said[field])
    tree = {"$schema": "https://json-schema.org/draft/2020-12/schema", **tree}
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def _describe(property: dict[str, Any], meaning: str) -> None:
    property.pop("title", None)
    property["description"] = meaning


def _holds(leaf: Leaf) -> str:
    if leaf.type is Distribution:
        return "distribution"
    origin = get_origin(leaf.type)
    if origin is Literal:
        words = ", ".join(get_args(leaf.type))
    elif origin is tuple:
        words = "list of texts"
    elif origin is Mapping:
        words = f"{_TYPES[get_args(leaf.type)[1]]} by {leaf.label}"
    else:
        words = _TYPES[leaf.type]
    return f"{words}, or null" if leaf.optional else words


def _metric(leaf: Leaf) -> str:
    return ", ".join(f"`{name}`" for name in names(leaf)) or "–"


if __name__ == "__main__":
    MANUAL.write_text(manual(MANUAL.read_text()))
    SCHEMA.write_text(schema())
