"""`edgectl model show`: what a GGUF file says of its model, and the memory that it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edged.cli.output import print_json, print_rows, size
from edged.models.gguf import GgufFacts, read_gguf
from edged.models.memory import MIN_CONTEXT, MemoryEstimate, estimate
from edged.models.sizing import defaults, is_memory_bound, repacked_types_here
from edged.settings import Settings


def show(path: Path, settings: Settings, *, as_json: bool) -> None:
    """Print the model's facts and a table of its memory by context, for these settings and this machine.

    Raises:
        EdgedError: the file can't be read or is no model that is served.
    """
    facts = read_gguf(path)
    estimates = [_estimate(facts, settings, context) for context in _contexts(facts.n_ctx_train)]
    if as_json:
        told = {field.name: getattr(facts, field.name) for field in fields(facts) if field.name != "tensors"}
        print_json({"path": str(path), **told, "memory": [_memory_fields(each) for each in estimates]})
        return
    print_rows(_facts(path, facts))
    first = estimates[0]
    print(
        f"\nMemory for {first.sequences} requests at once, KV cache {first.kv_type}, by tokens of a request:"
    )
    rows: list[tuple[str, ...]] = [("CONTEXT", "REPACKED", "KV CACHE", "COMPUTING", "MAPPED", "IN ALL")]
    for each in estimates:
        own = (each.repacked_bytes, each.kv_bytes, each.computing_bytes + each.process_bytes)
        row = map(size, (*own, each.file_bytes, each.needed_bytes))
        rows.append((str(each.context), *row))
    print_rows(rows, right=frozenset(range(6)))


def _contexts(trained: int) -> Iterator[int]:
    context = min(MIN_CONTEXT, trained)
    while context < trained:
        yield context
        context *= 2
    yield trained


def _estimate(facts: GgufFacts, settings: Settings, context: int) -> MemoryEstimate:
    model, engine = settings.model, settings.engine
    if isinstance(model.sequences, int):
        sequences = model.sequences
    else:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        sequences = defaults(len(os.sched_getaffinity(0)), memory, memory_bound=is_memory_bound()).sequences
    return estimate(
        facts,
        context,
        sequences,
        model.kv_type,
        ubatch_tokens=engine.ubatch_tokens,
        flash_attention=engine.flash_attention is True or engine.deterministic or model.kv_type != "f16",
        repacked_types=() if engine.repack is False else repacked_types_here(),
    )


def _memory_fields(each: MemoryEstimate) -> dict[str, Any]:
    sums = {name: getattr(each, name) for name in ("anonymous_bytes", "file_bytes", "needed_bytes")}
    return {**asdict(each), **sums}


def _facts(path: Path, facts: GgufFacts) -> list[tuple[str, str]]:
    heads = "/".join(map(str, sorted(set(facts.n_head_kv))))
    tensors = ", ".join(f"{kind} {size(count)}" for kind, count in facts.bytes_by_type.items())
    return [
        ("file", str(path)),
        ("name", facts.name or "-"),
        ("architecture", facts.architecture),
        ("parameters", f"{facts.n_params / 1e6:.1f} M"),
        ("quantisation", facts.quantisation),
        ("size", f"{size(facts.file_bytes)} ({tensors})"),
        ("context", f"trained for {facts.n_ctx_train} tokens"),
        (
            "layers",
            f"{facts.n_layer} of width {facts.n_embd}, {facts.n_head} heads, {heads} for keys and values",
        ),
        ("vocabulary", f"{facts.n_vocab} tokens ({facts.tokenizer})"),
        ("template", "its own" if facts.chat_template else "none: a plain one is used"),
        ("license", facts.license or "-"),
    ]
