"""What clients do: each load is the same for both servers, and new in each round."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tools.bench.client import Client, Script, chat, completion
from tools.bench.prompts import Writer

LONG_TOKENS, SHORT_TOKENS = 800, 40
USUAL_ANSWER = 16
BESIDE = "a long prompt beside four streams"
BESIDE_STREAMS = 4
BESIDE_PROMPT = 3000
BESIDE_ANSWER = 2000


@dataclass(frozen=True)
class Load:
    """One load over HTTP.

    Attributes:
        name: what the results call it.
        clients: makes its clients for a round.
        slots: how many slots llama-server may have: as many as edged, or any number.
    """

    name: str
    clients: Callable[[Writer], list[Client]]
    any_slots: bool = False


def alone(prompt_tokens: int, answer_tokens: int, times: int = 1) -> Callable[[Writer], list[Client]]:
    """Return a load of one client that has raw texts continued."""
    return together(1, prompt_tokens, answer_tokens, times)


def together(
    clients: int, prompt_tokens: int, answer_tokens: int, times: int = 1
) -> Callable[[Writer], list[Client]]:
    """Return a load of clients that have raw texts continued."""

    def make(writer: Writer) -> list[Client]:
        return [
            Client(each([completion(writer.text(prompt_tokens), answer_tokens) for _ in range(times)]))
            for _ in range(clients)
        ]

    return make


def questions(
    clients: int, requests: int, tokens: int, answer_tokens: int
) -> Callable[[Writer], list[Client]]:
    """Return a load of clients that take questions, which share nothing, from one queue."""

    def make(writer: Writer) -> list[Client]:
        queue = deque(
            chat([{"role": "user", "content": writer.question(tokens)}], answer_tokens)
            for _ in range(requests)
        )
        return [Client(_drain(queue)) for _ in range(clients)]

    return make


def conversation(turns: int, tokens: int, answer_tokens: int) -> Callable[[Writer], list[Client]]:
    """Return a load of one client that talks, each turn with all earlier ones before it."""

    def script(writer: Writer) -> Script:
        messages: list[dict[str, str]] = []
        for _ in range(turns):
            messages.append({"role": "user", "content": writer.question(tokens)})
            reply = yield chat(messages, answer_tokens)
            messages.append({"role": "assistant", "content": reply.text()})

    return lambda writer: [Client(script(writer))]


def usual(clients: int, requests: int) -> Callable[[Writer], list[Client]]:
    """Return the usual load of an edge daemon: many devices, few task prompts, short answers."""

    def make(writer: Writer) -> list[Client]:
        tasks = [writer.text(600) for _ in range(3)]
        queue = deque(
            chat(
                [{"role": "system", "content": task}, {"role": "user", "content": writer.question(45)}],
                USUAL_ANSWER,
            )
            for task in writer.shuffled((tasks * -(-requests // len(tasks)))[:requests])
        )
        return [Client(_drain(queue)) for _ in range(clients)]

    return make


class Beside:
    """Streams, and a long prompt that comes while they run.

    Attributes:
        streams: clients with long answers.
        reader: the client with the long prompt.

    Args:
        writer: of the texts.
        delay: seconds until the long prompt comes.
    """

    def __init__(self, writer: Writer, delay: float) -> None:
        self.streams = together(BESIDE_STREAMS, SHORT_TOKENS, BESIDE_ANSWER)(writer)
        self.reader = Client(each([completion(writer.text(BESIDE_PROMPT), 1)]), delay=delay)


SERVED: tuple[Load, ...] = (
    *(
        Load(f"{kind}, {_n} {'client' if _n == 1 else 'clients'}", questions(_n, _requests, tokens, answer))
        for kind, tokens, answer, counts in (
            ("short prompts", SHORT_TOKENS, 48, {1: 4, 4: 16, 8: 32}),
            ("long prompts", LONG_TOKENS, 32, {1: 2, 4: 4, 8: 8}),
        )
        for _n, _requests in counts.items()
    ),
    Load("conversation of 10 turns", conversation(10, SHORT_TOKENS, 32)),
    Load("the usual load", usual(8, 48), any_slots=True),
    Load("nothing shared", questions(8, 16, 600, USUAL_ANSWER), any_slots=True),
)


def each(requests: list[bytes]) -> Script:
    """Return the script of a client that asks one after the other."""
    for request in requests:  # noqa: UP028 -- a list can't be sent the replies
        yield request


def _drain(queue: deque[bytes]) -> Script:
    while queue:
        yield queue.popleft()
