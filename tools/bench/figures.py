"""From replies to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from tools.bench.client import Client
from tools.bench.loads import Beside
from tools.bench.statistics import percentile

Figures = dict[str, float]


def served(clients: Sequence[Client]) -> Figures:
    """Return what users of a server notice: tokens per second, waits for the first token, gaps (ms)."""
    replies = [reply for client in clients for reply in client.replies]
    counts = [reply.tokens() for reply in replies]
    seconds = max(reply.ended for reply in replies) - min(reply.sent for reply in replies)
    tokens = sum(count["completion"] for count in counts)
    first = [reply.first_token * 1000 for reply in replies]
    gaps = [gap * 1000 for reply in replies for gap in reply.gaps]
    return {
        "tokens/s": tokens / seconds,
        "first token p50": percentile(first, 0.5),
        "first token p95": percentile(first, 0.95),
        "gap p50": percentile(gaps, 0.5),
        "gap p95": percentile(gaps, 0.95),
        "tokens": tokens,
        "prompt tokens": sum(count["prompt"] for count in counts),
        "cached tokens": sum(count["cached"] for count in counts),
        "tokens an event": tokens / max(1, sum(reply.texts for reply in replies)),
    }


def decode(client: Client) -> Figures:
    """Return how fast one stream comes: by the median gap, and by the mean one."""
    [reply] = client.replies
    gaps = reply.gaps
    return {
        "tokens/s": 1 / percentile(gaps, 0.5),
        "tokens/s by the mean": len(gaps) / sum(gaps),
        "tokens": reply.tokens()["completion"],
        "tokens an event": reply.tokens()["completion"] / reply.texts,
    }


def prefill(client: Client) -> Figures:
    """Return how fast a prompt is read: its tokens by the wait for the first token of the answer."""
    [reply] = client.replies
    tokens = reply.tokens()
    return {"tokens/s": tokens["prompt"] / reply.first_token, "cached tokens": tokens["cached"]}


def streams(clients: Sequence[Client]) -> Figures:
    """Return how fast streams come together, while all of them run."""
    arrivals = [reply.arrivals for client in clients for reply in client.replies]
    since, until = max(times[0] for times in arrivals), min(times[-1] for times in arrivals)
    texts = sum(since < at <= until for times in arrivals for at in times)
    events = sum(reply.texts for client in clients for reply in client.replies)
    tokens = sum(reply.tokens()["completion"] for client in clients for reply in client.replies)
    return {
        "tokens/s": texts * (tokens / events) / (until - since),
        "tokens": tokens,
        "tokens an event": tokens / events,
    }


def beside(load: Beside, alone: Client) -> Figures:
    """Return what a long prompt and the streams that run do to each other (ms)."""
    [long], [unhindered] = load.reader.replies, alone.replies
    read = (long.sent, long.sent + long.first_token)
    gaps = [
        (later - earlier) * 1000
        for client in load.streams
        for reply in client.replies
        for earlier, later in pairwise(reply.arrivals)
        if later > read[0] and earlier < read[1]
    ]
    return {
        "gap max": max(gaps),
        "gap p95": percentile(gaps, 0.95),
        "first token": long.first_token * 1000,
        "first token alone": unhindered.first_token * 1000,
        "times later": long.first_token / unhindered.first_token,
        "streams' tokens": len(gaps),
    }


def cpu_per_token(before: Mapping[str, float], after: Mapping[str, float], tokens: float) -> Figures:
    """Return the processor time of each process for a token, in milliseconds."""
    return {f"cpu {name}, ms a token": (after[name] - before[name]) * 1000 / tokens for name in before}
