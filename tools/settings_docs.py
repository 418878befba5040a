"""Write what documents the settings out of their definitions: config/edged.toml, docs/configuration.md.

`make docs` runs it; a test compares, so that neither can drift from the code.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from edged.settings.describe import is_reloadable
from edged.settings.keys import KEYS, SECRETS, TABLES, allowed, default_text, toml

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config/edged.toml"
MANUAL = ROOT / "docs/configuration.md"

_WIDTH = 100
_HEAD = """\
# The settings of edged: every key with its default, commented out.
#
# `edgectl config check` says whether a change is right, `edgectl config show` what is in force.
# A key can also be given in the environment: queue of [limits] is EDGED_LIMITS__QUEUE.
# Keys marked (reload) take effect by `systemctl reload edged`, the others by a restart.
"""
_TABLES = re.compile(r"(?<=<!-- tables -->\n).*(?=<!-- end of tables -->)", re.DOTALL)


def example() -> str:
    """Return the text of config/edged.toml."""
    lines = [_HEAD]
    for table, keys in _keys_by_table():
        if table:
            lines += [f"# {_meaning(table)}", f"[{table}]", ""]
        for key in keys:
            lines += [*_explanation(key), *_assignment(key), ""]
    return "\n".join(lines)


def manual_tables() -> str:
    """Return the tables of docs/configuration.md."""
    lines = []
    for table, keys in _keys_by_table():
        lines += ["", f"### [{table}]" if table else "### Top level", "", _meaning(table), ""]
        lines += ["| Key | Default | Allowed | Reload | Meaning |", "| --- | --- | --- | --- | --- |"]
        for key in keys:
            cells = (
                f"`{key}`",
                _code(default_text(key)),
                allowed(key),
                "yes" if is_reloadable(key) else "no",
                KEYS[key].description or "",
            )
            lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    return "\n".join([*lines, "", ""])


def manual(text: str) -> str:
    """Return the manual with its tables renewed."""
    return _TABLES.sub(lambda _: manual_tables(), text)


def _keys_by_table() -> Iterator[tuple[str, list[str]]]:
    for table in TABLES:
        if keys := [key for key in KEYS if key.rpartition(".")[0] == table]:
            yield table, keys


def _meaning(table: str) -> str:
    if not table:
        return "The daemon as a whole."
    return (inspect.getdoc(TABLES[table]) or "").partition("\n")[0]


def _explanation(key: str) -> list[str]:
    default = default_text(key)
    words = f"{KEYS[key].description} Allowed: {allowed(key)}."
    if default != _shown(key):
        words += f" Default: {default}."
    if is_reloadable(key):
        words += " (reload)"
    return textwrap.wrap(words, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _assignment(key: str) -> list[str]:
    return [] if key in SECRETS else [f"#{key.rpartition('.')[2]} = {_shown(key)}"]


def _shown(key: str) -> str:
    """Return the default, or an example where that is none or depends on the machine."""
    field = KEYS[key]
    constant = None if field.default_factory else field.default
    return toml(field.examples[0] if constant is None and field.examples else constant)


def _code(text: str) -> str:
    return text if text == "none" else f"`{text}`"


if __name__ == "__main__":
    EXAMPLE.write_text(example())
    MANUAL.write_text(manual(MANUAL.read_text()))
