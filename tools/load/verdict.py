"""What must hold after a run, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tools.chaos.verdict import Verdict
from tools.load.footprint import Footprint
from tools.load.house import Event
from tools.load.requesters import Account

MOST_GROWTH_BYTES = 12_000_000
"""Of a process: what is kept of a thousand ended requests, and what allocators keep of their peak."""
ENDS = ("stop", "length", "cancelled")
EXPECTED_ERRORS = ("expired", "engine_crashed", "busy", "prompt_too_long")
EXPECTED_LOG_ERRORS = ("the engine died",)


def judge(accounts: Iterable[Account], log: Sequence[Event], kills: int) -> Verdict:
    """Check every request's account and the daemon's log."""
    accounts = list(accounts)
    faults = [f"{account.ask.id}: {fault}" for account in accounts for fault in _faults_of(account)]
    counted = Counter(account.ask.id for account in accounts)
    faults += [f"{id}: noted {count} times" for id, count in counted.items() if count > 1]
    faults += _faults_in(log, kills)
    counts = Counter(account.ask.manner for account in accounts)
    ends = Counter(end for account in accounts for end in account.ends)
    return Verdict(
        counts={
            "requests": len(accounts),
            **{f"manner_{manner}": count for manner, count in sorted(counts.items())},
            **{f"end_{end}": ends[end] for end in ENDS},
            "left": sum(account.left for account in accounts),
            "never_admitted": sum(account.frames is None for account in accounts),
            "engine_kills": kills,
        },
        errors={code: count for code, count in ends.items() if code not in ENDS},
        faults=faults,
    )


def compare(name: str, before: Footprint, after: Footprint, *, allowed_bytes: int = 0) -> list[str]:
    """Return in what a process holds more than before; `allowed_bytes` are on top of the usual growth."""
    faults = []
    if after.descriptors > before.descriptors:
        faults.append(f"{name}: {after.descriptors} descriptors, {before.descriptors} before")
    if after.threads > before.threads:
        faults.append(f"{name}: {after.threads} threads, {before.threads} before")
    growth, most = after.memory.pss - before.memory.pss, MOST_GROWTH_BYTES + allowed_bytes
    if growth > most:
        faults.append(f"{name}: its PSS grew by {growth:,} B; {most:,} are allowed")
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
