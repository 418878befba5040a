"""`edgectl status`: how the daemon, its model and its engine do."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from edged.cli.checks import Fields, checks
from edged.cli.client import Daemon
from edged.cli.errors import Exit
from edged.cli.output import duration, note, print_json, print_rows, size
from edged.cli.terminal import harmless


def run(args: Namespace) -> Exit:
    """Print the daemon's status, and what is amiss on stderr; again and again where that is wanted."""
    if args.watch is not None:
        from edged.cli.status_watch import watch

        return watch(args)
    status = Daemon.of(args).get("/v1/status")
    if args.json:
        print_json(status)
        return Exit.OK
    print_status(status)
    return Exit.OK


def print_status(status: Fields) -> None:
    """Print a status, and what is amiss on stderr."""
    print_rows(rows(status))
    sys.stdout.flush()
    found = warnings(status)
    for warning in found:
        print(f"warning: {harmless(warning)}", file=sys.stderr)
    if found:
        note("edgectl doctor says what to do")


def warnings(status: Fields) -> list[str]:
    """Return what is amiss."""
    return [check.says for check in checks(status) if check.state != "ok"]


def rows(status: Fields) -> list[Sequence[str]]:
    """Return a status in rows of a name and what there is to say."""
    return [
        ("edged", _edged(status)),
        ("device", status["device_id"]),
        *_model(status["model"]),
        ("engine", _engine(status["engine"])),
        *_kernels(status["engine"]),
        ("requests", _requests(status["requests"], status["limits"])),
        ("speed", _speed(status["speed"])),
        ("memory", _memory(status["memory"])),
        *_level(status.get("watch")),
        *_estimate(status["memory"]["engine_estimate"]),
        *_heat(status.get("watch")),
        ("sessions", str(status["sessions"])),
        ("mqtt", _mqtt(status.get("mqtt"))),
        *_journal(status.get("journal")),
        *_clock(status.get("clock")),
        *_parts(status.get("liveness")),
    ]


def _edged(status: Fields) -> str:
    up = duration(status["uptime_seconds"])
    return f"{status['version']}, {status['phase']}, up {up}, process {status['pid']}"


def _model(model: Fields | None) -> list[tuple[str, str]]:
    if model is None:
        return [("model", "none loaded")]
    kind = f"{model['architecture']}, {model['parameters'] / 1e6:.0f} M parameters, {model['quantisation']}"
    return [
        ("model", f"{model['name']} ({kind}, {size(model['size_bytes'])})"),
        ("context", f"{model['sequences']} × {model['context']} tokens, KV cache {model['kv_type']}"),
    ]


def _engine(engine: Fields) -> str:
    state = engine["state"]
    if state == "starting" and engine["load_progress"] is not None:
        state += f" ({engine['load_progress']:.0%} loaded)"
    if engine["next_try_seconds"] is not None:
        state += f" (next try in {duration(engine['next_try_seconds'])})"
    parts = [
        state,
        f"process {engine['pid']}" if engine["pid"] else "",
        engine["library"],
        f"{_threads(engine['threads'])} ({engine['threads_batch']} for prompts)" if engine["threads"] else "",
        "flash attention" if engine["flash_attention"] else "",
        "deterministic" if engine["deterministic"] else "",
    ]
    return ", ".join(part for part in parts if part)


def _kernels(engine: Fields) -> list[tuple[str, str]]:
    if not engine.get("kernels"):  # also of a daemon that is older than this
        return []
    build = f"{engine['kernel_build']}: " if engine.get("kernel_build") else ""
    return [("kernels", build + ", ".join(engine["kernels"]))]


def _requests(requests: Fields, limits: Fields) -> str:
    put_back = f" ({requests['put_back']} of them put back)" if requests["put_back"] else ""
    return (
        f"{requests['running']} running, {requests['queued']} of {limits['queue']} queued{put_back};"
        f" {requests['accepted_total']} accepted, {requests['done_total']} done,"
        f" {requests['failed_total']} failed, {requests['cancelled_total']} cancelled"
    )


def _speed(speed: Fields) -> str:
    rates = {"prompt": speed["prompt_tokens_per_second"], "answer": speed["tokens_per_second"]}
    known = [f"{name} {rate:.0f} tokens/s" for name, rate in rates.items() if rate is not None]
    return ", ".join(known) or "not measured yet"


def _memory(memory: Fields) -> str:
    return (
        f"daemon {size(memory['daemon_bytes'])}, engine {size(memory['engine_bytes'])},"
        f" {size(memory['available_bytes'])} available"
    )


def _level(watch: Fields | None) -> list[tuple[str, str]]:
    memory = (watch or {}).get("memory")
    if memory is None:
        return []
    reason = f": {memory['reason']}" if "reason" in memory else ""
    return [("level", f"{memory['level']}{reason} (by {', '.join(memory['sources'])})")]


def _estimate(estimate: Fields | None) -> list[tuple[str, str]]:
    if estimate is None:
        return []
    return [
        (
            "needs",
            f"engine {size(estimate['anonymous_bytes'])} of its own,"
            f" {size(estimate['file_bytes'])} mapped,"
            f" prefix cache up to {size(estimate['prefix_cache_bytes'])}",
        )
    ]


def _heat(watch: Fields | None) -> list[tuple[str, str]]:
    if watch is None:
        return []
    heat = watch["thermal"]
    celsius = f"{heat['celsius']:.1f} °C" if heat["celsius"] is not None else "no thermometer"
    state = heat["state"].replace("_", " ")
    held = f"{_threads(heat['threads'])}, {heat['duty']:.0%} of the time"
    return [("heat", f"{celsius}, target {heat['target_celsius']:g} °C, {state}: {held}")]


def _mqtt(mqtt: Fields | None) -> str:
    if mqtt is None:
        return "off"
    state = mqtt["state"].replace("_", " ")
    protocol = f", MQTT {mqtt['protocol']}" if mqtt["protocol"] else ""
    pool = mqtt["pool"]
    joined = f", pool {pool['name']} {'joined' if pool['joined'] else 'not joined'}" if pool else ""
    return (
        f"{mqtt['url']} {state}{protocol}{joined}; {mqtt['counters']['asks']} asked,"
        f" {mqtt['in_flight'] + mqtt['waiting']} to send, {mqtt['reconnects']} reconnects"
    )


def _journal(journal: Fields | None) -> list[tuple[str, str]]:
    if journal is None:
        return []
    state = "" if journal["state"] == "ok" else ", can't be written"
    return [
        (
            "journal",
            f"{size(journal['bytes'])} of {size(journal['max_bytes'])}{state}; {journal['asks']} to answer,"
            f" {journal['answers']} answers kept, {journal['outbox']} for the broker",
        )
    ]


def _clock(clock: Fields | None) -> list[tuple[str, str]]:
    if clock is None:
        return []
    return [("clock", f"{clock['time']}, {'' if clock['clock_synchronised'] else 'not '}synchronised")]


def _parts(liveness: Fields | None) -> list[tuple[str, str]]:
    """Return how the parts get on, where one does not."""
    parts = liveness["parts"] if liveness else {}
    if all(part["state"] == "ok" for part in parts.values()):
        return []
    told = [
        f"{name} still for {part['still_seconds']:.0f} of {part['bound_seconds']:.0f} s"
        if part["still_seconds"]
        else f"{name} gets on"
        for name, part in parts.items()
    ]
    return [("parts", ", ".join(told))]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
