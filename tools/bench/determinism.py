"""What `engine.deterministic` costs, and what it gives: answers that do not depend on who else asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.bench import figures, loads
from tools.bench.client import Client, completion
from tools.bench.prompts import Writer
from tools.bench.results import Results
from tools.bench.session import ANSWER_TOKENS, PROMPT_TOKENS, STREAM_PROMPT, STREAMS, ask, say
from tools.bench.sides import Edged

DETERMINISTIC = "deterministic"
_COMPARED_TOKENS = (STREAM_PROMPT, 300)
_COMPARED_ANSWER = 64


def equal_answers(edged: Edged, writer: Writer) -> float:
    """Return the share of answers, to short and long prompts, that are the same alone and together."""
    prompts = [writer.text(_COMPARED_TOKENS[place % 2]) for place in range(2 * STREAMS)]
    requests = [completion(prompt, _COMPARED_ANSWER) for prompt in prompts]
    alone = [_texts(edged, [request])[0] for request in requests]
    together = [*_texts(edged, requests[:STREAMS]), *_texts(edged, requests[STREAMS:])]
    return sum(one == other for one, other in zip(alone, together, strict=True)) / len(prompts)


def compare(model: Path, tables: dict[str, dict[str, Any]], *, rounds: int, results: Results) -> None:
    """Measure edged as it is configured, and deterministic, in turn."""
    strict = {**tables, "engine": {**tables.get("engine", {}), "deterministic": True}}
    for number in range(rounds):
        for name, side in ((Edged.name, tables), (f"{Edged.name}, deterministic", strict)):
            with Edged(model, side).ready() as edged:
                results.note(DETERMINISTIC, name, _measure(edged, Writer(f"{DETERMINISTIC} {number}")))
        say(f"  {DETERMINISTIC}: round {number + 1} of {rounds}")


def _measure(edged: Edged, writer: Writer) -> dict[str, float]:
    [one], _ = ask(edged, loads.alone(STREAM_PROMPT, ANSWER_TOKENS)(writer))
    [reader], _ = ask(edged, loads.alone(PROMPT_TOKENS, 1)(writer))
    eight, _ = ask(edged, loads.together(STREAMS, STREAM_PROMPT, ANSWER_TOKENS)(writer))
    return {
        "one stream, tokens/s": figures.decode(one)["tokens/s"],
        "prefill, tokens/s": figures.prefill(reader)["tokens/s"],
        "eight streams, tokens/s": figures.streams(eight)["tokens/s"],
        "share of equal answers": equal_answers(edged, writer),
    }


def _texts(edged: Edged, requests: list[bytes]) -> list[str]:
    clients, _ = ask(edged, [Client(loads.each([request])) for request in requests])
    return [client.replies[0].text() for client in clients]
