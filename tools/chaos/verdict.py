"""What must hold after a run, and its figures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from tools.chaos.ledger import TERMINAL, Account, Ledger
from tools.trials import Verdict

Event = dict[str, Any]


def judge(
    ledger: Ledger,
    log: Sequence[Event],
    *,
    broker_kills: Sequence[tuple[float, float]] = (),
    repeats_allowed: bool = True,
) -> Verdict:
    """Check every prompt's account and the daemons' log.

    A broker that is killed loses frames that it has acknowledged. So chunks may be missing of a prompt that
    was under way then; they are counted (`holed`), and what has come must be right all the same.
    """
    accounts = list(ledger.accounts.values())
    faults = list(ledger.oddities)
    holed = 0
    for account in accounts:
        was_hurt = any(_under_way(account, *kill) for kill in broker_kills)
        own, holes = _faults_of(account)
        faults += own
        if holes and not was_hurt:
            faults += holes
        holed += bool(holes)
    faults += _compare_texts(accounts)
    faults += _computed_again(accounts, log)
    repeats = sum(max(0, len(account.asked) - 1) for account in accounts)
    if repeats and not repeats_allowed:
        faults.append(f"{repeats} prompts were asked again, in a run that is to do without")
    return Verdict(_count(accounts, ledger, log, repeats, holed), _errors(accounts), faults)


def _under_way(account: Account, began: float, ended: float) -> bool:
    """Say whether a prompt was asked and not yet answered at some moment between the two."""
    if not account.asked or account.asked[0] > ended:
        return False
    last = next((heard.at for heard in account.heard if heard.frame["type"] in TERMINAL), float("inf"))
    return last >= began


def _faults_of(account: Account) -> tuple[list[str], list[str]]:
    """Return what is wrong with a prompt, and which frames of its last attempt are missing."""
    name = f"{account.prompt.client}: {account.prompt.id}"
    frames: dict[tuple[int, int], Event] = {}
    payloads: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for heard in account.heard:
        place = heard.frame["attempt"], heard.frame["seq"]
        frames.setdefault(place, heard.frame)
        payloads[place].add(heard.payload)
    faults = [f"{name}: frames {place} differ" for place, each in payloads.items() if len(each) > 1]
    terminals = {place: frame for place, frame in frames.items() if frame["type"] in TERMINAL}
    if len(terminals) != 1:
        return [*faults, f"{name}: {len(terminals)} distinct terminal frames"], []
    [((attempt, last_seq), terminal)] = terminals.items()
    if terminal["type"] == "error":
        return [*faults, f"{name}: {terminal['code']}: {terminal['message']}"], []
    faults += [
        f"{name}: frame {place} is beyond the terminal {(attempt, last_seq)}"
        for place in frames
        if place > (attempt, last_seq)
    ]
    whole = _is_whole(account, terminal)
    if whole is not None:
        faults.append(f"{name}: {whole}")
    missing = [seq for seq in range(last_seq) if (attempt, seq) not in frames]
    if missing:
        return faults, [f"{name}: of attempt {attempt} the frames {missing} of {last_seq} have not come"]
    own = [frames[attempt, seq] for seq in range(last_seq)]
    joined = "".join(frame["text"] for frame in own if frame["type"] == "chunk")
    if joined != (terminal["text"] if account.prompt.streams else ""):
        faults.append(f"{name}: the chunks of attempt {attempt} joined are not the text of its last frame")
    if [frame["type"] for frame in own].count("accepted") != 1 or own[0]["type"] != "accepted":
        faults.append(f"{name}: attempt {attempt} does not begin with its one `accepted`")
    return faults, []


def _is_whole(account: Account, done: Event) -> str | None:
    most, got = account.prompt.fields["max_tokens"], done["usage"]["completion_tokens"]
    if done["finish_reason"] == "cancelled":
        return "its answer was cancelled"
    if done["finish_reason"] == "length" and got != most:
        return f"its answer has {got} tokens, and {most} were asked for"
    return None


def _compare_texts(accounts: Iterable[Account]) -> list[str]:
    """Equal bodies have equal answers: the daemon runs deterministically."""
    texts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for account in accounts:
        for heard in account.heard:
            if heard.frame["type"] == "done":
                texts[account.prompt.body][heard.frame["text"]].append(account.prompt.id)
                break
    return [
        f"equal prompts have {len(answers)} different answers: {[ids[:3] for ids in answers.values()]}"
        for answers in texts.values()
        if len(answers) > 1
    ]


def _computed_again(accounts: Iterable[Account], log: Iterable[Event]) -> list[str]:
    """Return the prompts that a daemon took in hand after their requester had the terminal frame."""
    answered = {
        (account.prompt.client, account.prompt.id): heard.at
        for account in accounts
        for heard in reversed(account.heard)
        if heard.frame["type"] in TERMINAL
    }
    faults = []
    for event in log:
        if event.get("event") != "accepted":
            continue
        at = datetime.fromisoformat(event["timestamp"]).timestamp()
        answered_at = answered.get((event["client"], event["request_id"]))
        if answered_at is not None and at > answered_at:
            faults.append(
                f"{event['client']}: {event['request_id']}: taken in hand again "
                f"{at - answered_at:.3f} s after its terminal frame had come"
            )
    return faults


def _count(
    accounts: Sequence[Account], ledger: Ledger, log: Sequence[Event], repeats: int, holed: int
) -> dict[str, int]:
    frames = [heard for account in accounts for heard in account.heard]
    distinct = {(account.prompt.id, heard.payload) for account in accounts for heard in account.heard}
    last_attempts = [
        max((heard.frame["attempt"] for heard in account.heard), default=0) for account in accounts
    ]
    events = Counter(event.get("event") for event in log)
    return {
        "prompts": len(accounts),
        "answers": sum(account.answered for account in accounts),
        "computations": events["accepted"],
        "attempts_seen": len({(a.prompt.id, h.frame["attempt"]) for a in accounts for h in a.heard}),
        "answered_in_a_later_attempt": sum(attempt > 1 for attempt in last_attempts),
        "cut_off_after_chunks": sum(_was_cut_off(account) for account in accounts),
        "asks": sum(len(account.asked) for account in accounts),
        "repeats": repeats,
        "requester_reconnects": ledger.counts["reconnects"],
        "daemon_connections": events["connected with the broker"],
        "frames": len(frames),
        "duplicate_frames": len(frames) - len(distinct),
        "holed": holed,
    }


def _was_cut_off(account: Account) -> bool:
    """Say whether an attempt ended in the middle of its text."""
    last = max((heard.frame["attempt"] for heard in account.heard), default=0)
    return any(h.frame["type"] == "chunk" and h.frame["attempt"] < last for h in account.heard)


def _errors(accounts: Iterable[Account]) -> dict[str, int]:
    codes = {
        (account.prompt.id, heard.frame["code"])
        for account in accounts
        for heard in account.heard
        if heard.frame["type"] == "error"
    }
    return dict(Counter(code for _, code in codes))
