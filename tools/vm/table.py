"""What was shown, row by row: pass or fail, and the seconds it took."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.vm.machine import CommandError, MachineError


class ShownError(Exception):
    """Something does not hold; the message says what, with what was found."""


def show(holds: object, what: str) -> None:
    """Go on if it holds.

    Raises:
        ShownError: it does not.
    """
    if not holds:
        raise ShownError(what)


@dataclass
class Row:
    """One thing on one machine."""

    where: str
    what: str
    seconds: float
    fault: str | None
    said: str


@dataclass
class Table:
    """All rows, printed as they come."""

    rows: list[Row] = field(default_factory=list)

    def row(self, where: str, what: str, part: Callable[[], str | None]) -> bool:
        """Carry out one part, note what came of it and say whether it passed."""
        begun = time.monotonic()
        fault, said = None, ""
        try:
            said = part() or ""
        except Exception as error:
            fault = str(error) or type(error).__name__
            if not isinstance(error, (ShownError, MachineError, CommandError)):
                fault += "\n" + "".join(traceback.format_exception(error)[-3:])
        row = Row(where, what, time.monotonic() - begun, fault, said)
        self.rows.append(row)
        print(_line(row), flush=True)
        if fault:
            print("    " + fault.strip().replace("\n", "\n    "), flush=True)
        return fault is None

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return all(row.fault is None for row in self.rows)

    def markdown(self) -> str:
        """Return the table for docs/."""
        head = ["| machine | what | | seconds | |", "|---|---|---|---|---|"]
        lines = (
            f"| {r.where} | {r.what} | {'FAIL' if r.fault else 'pass'} | {r.seconds:.0f} | {r.said} |"
            for r in self.rows
        )
        return "\n".join([*head, *lines, ""])


def _line(row: Row) -> str:
    return f"{'FAIL' if row.fault else 'pass'}  {row.seconds:6.1f} s  {row.where:9}  {row.what}  {row.said}"
