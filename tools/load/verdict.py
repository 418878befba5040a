"""What must hold after a run, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tools.load.footprint import Footprint
from tools.load.house import Event
from tools.load.requesters import Account
from tools.trials import Verdict

MOST_GROWTH_BYTES = 12_000_000
"""Of a process: what is kept of a thousand ended requests, and what allocators keep of their peak."""
ENDS = ("stop", "length", "cancelled")
EXPECTED_ERRORS = ("expired", "engine_crashed", "busy", "prompt_too_long")
EXPECTED_LOG_ERRORS = ("the engine died",)


class Judge:
    """Checks every request as it ends, and remembers no more than figures and faults."""

    def __init__(self) -> None:
        self._manners: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._left = self._never_admitted = 0
        self._faults: list[str] = []

    def take(self, account: Account) -> None:
        """Check a request that has ended."""
        self._manners[account.ask.manner] += 1
        self._ends.update(account.ends)
        self._left += account.left
        self._never_admitted += account.frames is None
        self._faults += [f"{account.ask.id}: {fault}" for fault in _faults_of(account)]

    def verdict(self, log: Sequence[Event], kills: int) -> Verdict:
        """Check the daemon's log, too, and return what came of all."""
        return Verdict(
            counts={
                "requests": self._manners.total(),
                **{f"manner_{manner}": count for manner, count in sorted(self._manners.items())},
                **{f"end_{end}": self._ends[end] for end in ENDS},
                "left": self._left,
                "never_admitted": self._never_admitted,
                "engine_kills": kills,
            },
            errors={code: count for code, count in self._ends.items() if code not in ENDS},
            faults=[*self._faults, *_faults_in(log, kills)],
        )


def compare(name: str, before: Footprint, after: Footprint, *, allowed_bytes: int = 0) -> list[str]:
    """Return in what a process holds more than before; `allowed_bytes` are on top of the usual growth."""
    faults = []
    if after.descriptors > before.descriptors:
        faults.append(f"{name}: {after.descriptors} descriptors, {before.descriptors} before")
    if after.threads > before.threads:
        faults.append(f"{name}: {after.threads} threads, {before.threads} before")
    growth, most = after.memory.anonymous - before.memory.anonymous, MOST_GROWTH_BYTES + allowed_bytes
    if growth > most:
        faults.append(f"{name}: its own memory grew by {growth:,} B; {most:,} are allowed")
    return faults


def _faults_of(account: Account) -> list[str]:
    """Return what is wrong with a request."""
    if account.frames is None:
        was_refused = account.status not in (0, 200) and len(account.ends) == 1
        return [] if was_refused or account.left else ["the daemon knows nothing of it"]
    terminals = [frame for frame in account.frames if frame["type"] in ("done", "error")]
    if len(terminals) != 1 or account.frames[-1] is not terminals[0]:
        return [f"{len(terminals)} terminal frames: {[frame['type'] for frame in account.frames]}"]
    [terminal] = terminals
    end = terminal["finish_reason"] if terminal["type"] == "done" else terminal["code"]
    if end not in (*ENDS, *EXPECTED_ERRORS):
        return [f"{end}: {terminal.get('message')}"]
    if end == "cancelled" and not account.left and account.ask.manner != "cancels":
        return ["it was cancelled, and nobody wanted that"]
    if account.left:
        return []
    if account.ends != [end]:
        return [f"its client was told of the ends {account.ends}; the daemon's is {end}"]
    if not account.is_whole:
        return ["its stream broke off"]
    if terminal["type"] == "done" and terminal["text"] != account.text:
        return [f"its text came as {len(account.text)} characters; the daemon's has {len(terminal['text'])}"]
    return []


def _faults_in(log: Sequence[Event], kills: int) -> list[str]:
    faults = [f"the log has {event['raw']!r}" for event in log if "raw" in event]
    faults += [
        f"the log tells an error: {event}"
        for event in log
        if event.get("level") in ("error", "critical") and event["event"] not in EXPECTED_LOG_ERRORS
    ]
    deaths = sum(event.get("event") == "the engine died" for event in log)
    if deaths != kills:
        faults.append(f"the engine died {deaths} times; {kills} were kills")
    return faults
