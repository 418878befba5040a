"""`edgectl model show`: what a GGUF file says of its model, and the memory that it takes."""

from __future__ import annotations

from pathlib import Path

from edged.cli.output import print_rows, size
from edged.models.gguf import GgufFacts, read_gguf


def show(path: Path, *, as_json: bool) -> None:
    """Print the model's facts and a table of memory by context.

    Raises:
        EdgedError: the file can't be read or is no model that is served.
    """
    facts = read_gguf(path)
    print_rows(_facts(path, facts))


def _facts(path: Path, facts: GgufFacts) -> list[tuple[str, str]]:
    heads = sorted(set(facts.n_head_kv))
    return [
        ("file", str(path)),
        ("name", facts.name or "-"),
        ("architecture", facts.architecture),
        ("parameters", f"{facts.n_params / 1e6:.1f} M"),
        ("quantisation", facts.quantisation),
        ("size", size(facts.file_bytes)),
        ("tensors", ", ".join(f"{kind} {size(count)}" for kind, count in facts.bytes_by_type.items())),
        ("context", f"trained for {facts.n_ctx_train} tokens"),
        ("layers", f"{facts.n_layer} of width {facts.n_embd}, {facts.n_head} heads, key/value heads {heads}"),
        ("vocabulary", f"{facts.n_vocab} tokens ({facts.tokenizer})"),
        ("template", "its own" if facts.chat_template else "none: a plain one is used"),
        ("license", facts.license or "-"),
    ]
