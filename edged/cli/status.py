"""`edgectl status`: how the daemon, its model and its engine do."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from edged.cli.client import Daemon
from edged.cli.errors import Exit
from edged.cli.output import duration, print_json, print_rows, size
from edged.cli.terminal import harmless

Fields = Mapping[str, Any]


def run(args: Namespace) -> Exit:
    """Print the daemon's status, and what is amiss on stderr."""
    status = Daemon.of(args).get("/v1/status")
    if args.json:
        print_json(status)
        return Exit.OK
    print_rows(
        [
            ("edged", _edged(status)),
            ("device", status["device_id"]),
            *_model(status["model"]),
            ("engine", _engine(status["engine"])),
            ("requests", _requests(status["requests"], status["limits"])),
            ("speed", _speed(status["speed"])),
            ("memory", _memory(status["memory"])),
            ("sessions", str(status["sessions"])),
        ]
    )
    sys.stdout.flush()
    for warning in _warnings(status):
        print(f"warning: {harmless(warning)}", file=sys.stderr)
    return Exit.OK


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
    parts = [
        state,
        f"process {engine['pid']}" if engine["pid"] else "",
        engine["library"],
        f"{_threads(engine['threads'])} ({engine['threads_batch']} for prompts)" if engine["threads"] else "",
        "flash attention" if engine["flash_attention"] else "",
        "deterministic" if engine["deterministic"] else "",
    ]
    return ", ".join(part for part in parts if part)


def _requests(requests: Fields, limits: Fields) -> str:
    return (
        f"{requests['running']} running, {requests['queued']} of {limits['queue']} queued;"
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


def _warnings(status: Fields) -> Iterator[str]:
    engine, model = status["engine"], status["model"]
    if status["reason"]:
        yield f"{status['phase']}: {status['reason']}"
    elif engine["state"] in ("restarting", "failed"):
        yield f"the engine is {engine['state']}: the log says why"
    if engine["restarts"]:
        yield f"the engine was restarted {_times(engine['restarts'])}: the log says why"
    if engine["repack_reason"]:
        yield f"kernels without repacked weights, which are slower: {engine['repack_reason']}"
    if model is not None and model["template"] == "plain":
        yield "the model file has no chat template: a plain one is used, and answers may be poor"
    yield from engine["notes"]


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
