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
_PART_REMEDIES = {"journal": "see to the card: dmesg; edged ends itself and is started again"}
_DOWN = ("restarting", "failed", "low_memory")
_MOST_OF_ESTIMATE = 1.1
_SHARED_BYTES = 12 << 20  # of programs that other processes use, too: resident memory counts them
_SMALLER = "a smaller model, model.context or model.sequences; or end other programs"
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
    own = (_daemon, _parts, _engine, _model, _needs, _notes)
    for part in (*own, _memory, _heat, _mqtt, _pool, _journal, _clock):
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
    elif status["engine"]["state"] not in _DOWN:
        yield Check("daemon", "warn", phase, "wait, and look again")


def _parts(status: Fields) -> Iterator[Check]:
    for name, part in (status.get("liveness") or {"parts": {}})["parts"].items():
        if part["state"] == "stalled":
            says = f"{name} stands still, for {part['still_seconds']:.0f} s by now"
            yield Check(name, "fail", says, _PART_REMEDIES.get(name, f"the log has its stack: {_LOG}"))
        elif part["stalls"] and name != "engine":  # whose restarts are told
            says = f"{name} stood still {_times(part['stalls'])} and was helped on"
            yield Check(name, "warn", says, f"the log has its stack: {_LOG}")


def _engine(status: Fields) -> Iterator[Check]:
    engine = status["engine"]
    state, restarts = engine["state"], engine["restarts"]
    sound = state not in _DOWN
    if not sound and not status["reason"]:
        yield Check(
            "engine",
            "fail",
            f"the engine is {state.replace('_', ' ')}: the log says why",
            "journalctl -u edged",
        )
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


def _needs(status: Fields) -> Iterator[Check]:
    """Judge the estimate of the engine's memory: by what is measured, and before that by what there is."""
    estimate = status["memory"]["engine_estimate"]
    if estimate is None:
        return
    measured, available = status["memory"]["engine_bytes"], status["memory"]["available_bytes"]
    needed = estimate["anonymous_bytes"] + estimate["file_bytes"]
    says = f"engine {size(needed)} by the estimate"
    if measured is None:
        says += f", not in memory; {size(available)} available"
        fits = needed <= available
        yield Check("needs", "ok", says) if fits else Check("needs", "warn", says, _SMALLER)
        return
    if prefixes := (status["engine"].get("prefix_cache") or {}).get("bytes"):
        says += f" and {size(prefixes)} of prefixes"
        needed += prefixes
    says += f", {size(measured)} measured; {size(available)} available"
    if measured > _MOST_OF_ESTIMATE * needed + _SHARED_BYTES:
        remedy = "that is more than edged reckoned with: report it, with `edgectl status --json`"
        yield Check("needs", "warn", says, remedy)
    else:
        yield Check("needs", "ok", says)


def _notes(status: Fields) -> Iterator[Check]:
    for note in status["engine"]["notes"]:
        yield Check("engine", "warn", note, "edgectl config show has the values")


def _memory(status: Fields) -> Iterator[Check]:
    memory = (status.get("watch") or {}).get("memory")
    if memory is None:
        return
    by = f"watched by {', '.join(memory['sources'])}"
    if memory["level"] == "ok":
        yield Check("memory", "ok", f"enough, {by}")
        return
    says = f"memory is short, level {memory['level']}: {memory['reason']}; {by}"
    remedy = "end other programs, or take a smaller model, model.context or model.sequences"
    yield Check("memory", "warn", says, remedy)


def _heat(status: Fields) -> Iterator[Check]:
    heat = (status.get("watch") or {}).get("thermal")
    if heat is None:
        return
    match heat["state"]:
        case "too_hot":
            says = f"too hot, new requests are refused: {heat['reason']}"
            yield Check("governor", "warn", says, "cool the board: a fan, a heat sink, more air")
        case "distrusting":
            remedy = "it is believed again when it has made sense for a while; dmesg may say more"
            yield Check("governor", "warn", heat["reason"], remedy)
        case "governing":
            yield Check("governor", "ok", f"holds computing back: {heat['reason']}")


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
