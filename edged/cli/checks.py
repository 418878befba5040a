"""What is amiss with a daemon, judged by its status: the warnings of `status`, the checks of `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from edged.cli.output import duration, size

Fields = Mapping[str, Any]
State = Literal["ok", "warn", "fail"]

_NEARLY_FULL = 0.8
_LOG = "journalctl -u edged says more"
_NO_MODEL = "edgectl model list has the models, edgectl model fetch NAME gets one"
_MQTT_WAITS = ("connecting", "waiting_for_time")


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what it is.
        state: ok; warn: it works, but not as it should; fail: it doesn't work.
        says: what was found, in one line.
        remedy: what to do about it, where it is not ok.
    """

    name: str
    state: State
    says: str
    remedy: str = ""


def checks(status: Fields) -> Iterator[Check]:
    """Judge every part of /v1/status that can be amiss."""
    for part in (_daemon, _engine, _model, _notes, _mqtt, _pool, _journal, _clock):
        yield from part(status)


def _daemon(status: Fields) -> Iterator[Check]:
    phase, reason = status["phase"], status["reason"]
    if reason:
        state: State = "fail" if phase == "degraded" else "warn"
        remedy = _LOG if status["model"] else _NO_MODEL
        yield Check("daemon", state, f"{phase}: {reason}", remedy)
    elif phase == "ready":
        up = duration(status["uptime_seconds"])
        yield Check("daemon", "ok", f"{status['version']}, ready, up {up}")
    elif status["engine"]["state"] not in ("restarting", "failed"):
        yield Check("daemon", "warn", phase, "wait, and look again")


def _engine(status: Fields) -> Iterator[Check]:
    engine = status["engine"]
    state, restarts = engine["state"], engine["restarts"]
    sound = state not in ("restarting", "failed")
    if not sound and not status["reason"]:
        yield Check("engine", "fail", f"the engine is {state}: the log says why", "journalctl -u edged")
    if deaths := engine["deaths"]:
        yield _deaths(deaths, engine["next_try_seconds"], "fail" if state == "failed" else "warn")
    elif restarts:
        says = f"the engine was restarted {_times(restarts)}: the log says why"
        yield Check("engine", "warn", says, "journalctl -u edged")
    if engine["repack_reason"]:
        says = f"kernels without repacked weights, which are slower: {engine['repack_reason']}"
        yield Check(
            "engine", "warn", says, "engine.repack = false accepts it, engine.repack = true tries again"
        )
    if sound and not deaths and not restarts and not engine["repack_reason"]:
        yield Check("engine", "ok", f"{state}, {engine['library'] or 'no library loaded'}")


def _deaths(deaths: int, next_try_seconds: float | None, state: State) -> Check:
    says = f"the engine died {_times(deaths)} and has answered nothing since"
    if next_try_seconds is not None:
        says += f"; the next try is in {duration(next_try_seconds)}"
    return Check("engine", state, says, f"edgectl cmd restart_engine tries at once; {_LOG}")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _model(status: Fields) -> Iterator[Check]:
    model = status["model"]
    if model is None:
        if not status["reason"]:
            state: State = "warn" if status["phase"] == "starting" else "fail"
            yield Check("model", state, "no model is loaded", _NO_MODEL)
    elif model["template"] == "plain":
        says = "the model file has no chat template: a plain one is used, and answers may be poor"
        yield Check("model", "warn", says, "use a model of the catalogue: edgectl model list")
    else:
        yield Check("model", "ok", f"{model['name']}, {model['sequences']} × {model['context']} tokens")


def _notes(status: Fields) -> Iterator[Check]:
    for note in status["engine"]["notes"]:
        yield Check("engine", "warn", note, "edgectl config show has the values")


def _mqtt(status: Fields) -> Iterator[Check]:
    mqtt = status.get("mqtt")
    if mqtt is None:
        yield Check("mqtt", "ok", "off (mqtt.url is empty)")
        return
    url, state, problem = mqtt["url"], mqtt["state"], mqtt["problem"]
    if problem:
        grave: State = "warn" if state == "connected" else "fail"
        since = f" (for {duration(problem['since_seconds'])})"
        says = problem["message"] if url in problem["message"] else f"{url}: {problem['message']}"
        yield Check("mqtt", grave, f"{says}{since}", problem["remedy"] or "check mqtt.url")
    elif state == "connected":
        yield Check("mqtt", "ok", f"{url} connected, MQTT {mqtt['protocol']}")
    else:
        grave = "warn" if state in _MQTT_WAITS else "fail"
        yield Check("mqtt", grave, f"{url}: {state.replace('_', ' ')}", _mqtt_remedy(state))
    for note in mqtt["notes"]:
        yield Check("mqtt", "warn", note, "another broker has it, such as mosquitto; or do without")
    if dropped := mqtt["counters"]["dropped"]:
        says = f"{dropped} messages to the broker were dropped since the start"
        yield Check("mqtt", "warn", says, "is the broker often away? journal.outbox_max_bytes keeps more")


def _mqtt_remedy(state: str) -> str:
    match state:
        case "waiting_for_time":
            return "TLS needs the right time: is NTP reachable? timedatectl"
        case "duplicate_id":
            return "another daemon uses this device_id: give one of them another"
        case "stopped":
            return "systemctl restart edged"
    return "wait, and look again"


def _pool(status: Fields) -> Iterator[Check]:
    pool = (status.get("mqtt") or {}).get("pool")
    if pool is None:
        return
    problem = pool["problem"]
    if isinstance(problem, dict):
        yield Check("pool", "fail", f"{pool['name']}: {problem['message']}", problem["remedy"] or _LOG)
    elif problem:
        yield Check("pool", "fail", f"{pool['name']}: {problem}", _LOG)
    elif pool["joined"]:
        yield Check("pool", "ok", f"{pool['name']}, joined")
    else:
        says = f"{pool['name']}: not joined, {pool['state'].replace('_', ' ')}"
        yield Check("pool", "warn", says, "it joins when broker and model are ready")


def _journal(status: Fields) -> Iterator[Check]:
    journal = status.get("journal")
    if journal is None:
        return
    sound = True
    if journal["state"] != "ok":
        sound = False
        says = f"the journal can't be written: {journal['problem'] or 'no reason known'}"
        yield Check("journal", "fail", says, "make room on the disk, or see to the card: df, dmesg")
    for what, key, remedy in (
        ("journal", "", "journal.max_bytes allows more, journal.keep_results_seconds keeps less"),
        ("outbox", "outbox_", "the broker takes nothing: see mqtt; journal.outbox_max_bytes allows more"),
    ):
        used, most = journal[f"{key}bytes"], journal[f"{key}max_bytes"]
        if used >= _NEARLY_FULL * most:
            sound = False
            says = f"the {what} is nearly full: {size(used)} of {size(most)}"
            yield Check("journal", "warn", says, remedy)
    for loss in journal["losses"]:
        sound = False
        first, last = loss["first"], loss["last"]
        lost = f"record {first} was" if first == last else f"records {first} to {last} were"
        says = f"{lost} lost: {loss['reason']}"
        yield Check(
            "journal", "warn", says, "whoever waits for them asks again; the damaged file lies beside"
        )
    if sound:
        yield Check("journal", "ok", f"{size(journal['bytes'])} of {size(journal['max_bytes'])}")


def _clock(status: Fields) -> Iterator[Check]:
    clock = status.get("clock")
    if clock is None:
        return
    if clock["clock_synchronised"]:
        yield Check("clock", "ok", f"{clock['time']}, synchronised")
        return
    says = "not synchronised: TLS, time stamps, and ttls across a restart depend on it"
    yield Check("clock", "warn", says, "is NTP reachable? timedatectl set-ntp true")
