"""`edgectl bench`: how fast the running daemon reads prompts and answers, by requests at once."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from edged.cli.bench_asks import Reply, ask, ask_all, prompt
from edged.cli.bench_plan import Plan, make_plan
from edged.cli.bench_report import Batch, Measured, fields, print_table
from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json
from edged.cli.terminal import StatusLine, harmless

_FEW_WORDS, _MORE_WORDS = 8, 72
_FEWEST_GAPS = 2  # of an answer whose speed is told


def run(args: Namespace) -> Exit:
    """Measure, and print a table or JSON."""
    daemon = Daemon.of(args)
    _check(daemon.get("/v1/status"))
    with Bench(daemon) as bench:
        measured = bench.measure(args)
    if args.json:
        print_json(fields(measured))
    else:
        print_table(measured)
    sys.stdout.flush()
    for warning in measured.warnings:
        print(f"warning: {harmless(warning)}", file=sys.stderr)
    return Exit.OK


def _check(status: Mapping[str, Any]) -> None:
    """Refuse where nothing could be measured.

    Raises:
        CommandError: the daemon is not ready, or its model does not generate.
    """
    if status["phase"] != "ready" or status["model"] is None:
        reason = f": {status['reason']}" if status["reason"] else ""
        remedy = (
            "wait until it is ready" if status["phase"] == "starting" else "edgectl doctor says what to do"
        )
        raise CommandError(f"the daemon is {status['phase']}{reason}", Exit.RETRY, hint=remedy)
    if status["model"].get("generates") is False:
        raise CommandError(
            f"{status['model']['name']} makes embeddings and no answers",
            Exit.FAILED,
            hint="edgectl model use NAME takes another model",
        )


class Bench:
    """One measurement, told on stderr as it goes."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._line = StatusLine()
        self._asked = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self._line.clear()

    def measure(self, args: Namespace) -> Measured:
        """Measure one batch after the other.

        Raises:
            CommandError: a request was refused or failed.
        """
        self._tell("warming up")
        before = self._daemon.get("/v1/status")
        few, more = self._ask(_FEW_WORDS), self._ask(_MORE_WORDS)
        word_tokens = (more.prompt_tokens - few.prompt_tokens) / (_MORE_WORDS - _FEW_WORDS)
        other_tokens = few.prompt_tokens - _FEW_WORDS * word_tokens
        status = self._daemon.get("/v1/status")  # the context is known for certain now
        plan = make_plan(args, status, word_tokens, other_tokens)
        batches, peak = [], 0
        for count in plan.batches:
            batches.append(self._batch(count, plan))
            status = self._daemon.get("/v1/status")
            peak = max(peak, status["memory"]["engine_bytes"] or 0)
        return Measured(status, plan, batches, peak, self._others(before, status), _restarts(before, status))

    def _batch(self, count: int, plan: Plan) -> Batch:
        batch = Batch(count)
        for number in range(plan.runs):
            step = (
                f"{count} at once (of {', '.join(map(str, plan.batches))}), run {number + 1} of {plan.runs}"
            )
            self._tell(f"{step}: reading prompts")
            self._take_prompts(batch, self._ask_all(count, plan.prompt_words, max_tokens=1))
            self._tell(f"{step}: answering")
            self._take_answers(batch, self._ask_all(count, _FEW_WORDS, max_tokens=plan.answer_tokens))
        return batch

    @staticmethod
    def _take_prompts(batch: Batch, replies: list[Reply]) -> None:
        start, end = min(reply.sent for reply in replies), max(reply.ended for reply in replies)
        computed = sum(reply.prompt_tokens - reply.cached_tokens for reply in replies)
        batch.prompt_tokens = max(reply.prompt_tokens for reply in replies)
        batch.prompt_speeds.append(computed / (end - start))
        batch.first_tokens += [reply.first_token for reply in replies]

    @staticmethod
    def _take_answers(batch: Batch, replies: list[Reply]) -> None:
        """Take the speed of the time in which all answered; an answer that ended at once tells nothing."""
        if any(len(reply.arrivals) <= _FEWEST_GAPS for reply in replies):
            return
        start = max(reply.arrivals[0] for reply in replies)
        end = min(reply.arrivals[-1] for reply in replies)
        if start < end:
            tokens = sum(reply.tokens_between(start, end) for reply in replies)
            batch.answer_speeds.append(tokens / (end - start))

    def _ask(self, words: int) -> Reply:
        self._asked += 1
        return ask(self._daemon, prompt(words), max_tokens=1)

    def _ask_all(self, count: int, words: int, max_tokens: int) -> list[Reply]:
        self._asked += count
        return ask_all(self._daemon, [prompt(words) for _ in range(count)], max_tokens)

    def _others(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
        """Return how many requests of others were in hand meanwhile."""
        earlier, later = before["requests"], after["requests"]
        came = later["accepted_total"] - earlier["accepted_total"] - self._asked
        return int(came + earlier["running"] + earlier["queued"])

    def _tell(self, what: str) -> None:
        if self._line.works:
            self._line.show(f"measuring: {what} ...")
        else:
            print(f"measuring: {what}", file=sys.stderr, flush=True)


def _restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    return int(after["engine"]["restarts"] - before["engine"]["restarts"])
