"""What may come in: sizes, limits, and whether anything is computed now. Nothing here lets anything in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edged.core.dispatcher import Dispatcher
from edged.core.registry import Registry
from edged.core.speed import Speed
from edged.engine.client import Engine
from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import Client, Request
from edged.settings.schema import LimitsTable


class Admission:
    """Says whether a client's request may come in now.

    Attributes:
        low_memory: says why nothing new is let in that can't wait in the journal; None: it is.
        too_hot: why nothing new is let in until the device has cooled; None: it is.

    Args:
        limits: as they are now.
        registry: whose requests are in hand.
        dispatcher: which of them run, and whether it is closed.
        speed: for how long a client had better wait.
        engine: whether there is a model.
    """

    def __init__(
        self,
        limits: Callable[[], LimitsTable],
        *,
        registry: Registry,
        dispatcher: Dispatcher,
        speed: Speed,
        engine: Engine,
    ) -> None:
        self.low_memory: Callable[[], EdgedError | None] = lambda: None
        self.too_hot: EdgedError | None = None
        self._limits = limits
        self._registry = registry
        self._dispatcher = dispatcher
        self._speed = speed
        self._engine = engine
        self._visits: Counter[tuple[str, str]] = Counter()  # by client

    @contextmanager
    def visit(self, client: Client) -> Iterator[None]:
        """Let something in that has no ticket; while the context lasts it is a request in hand all the same.

        Raises:
            EdgedError: `shutting_down`, `model_unavailable`, `low_memory`, `too_hot` or `busy`.
        """
        self.check_open()
        self.check_memory()
        self.check_limits(client)
        self._visits[client.identity] += 1
        try:
            yield
        finally:
            self._visits -= Counter([client.identity])

    def refusal(self, client: Client) -> EdgedError | None:
        """Return why nothing of this client's is let in now; None: it is."""
        try:
            self.check_open()
            self.check_limits(client)
        except EdgedError as error:
            return error
        return None

    def check_open(self) -> None:
        """Refuse whatever comes while nothing can be computed.

        Raises:
            EdgedError: `shutting_down` or `model_unavailable`.
        """
        if self._dispatcher.closed:
            raise stopping()
        if self._engine.state == "failed":
            raise no_model(self._engine)

    def check_memory(self) -> None:
        """Refuse what can't wait in the journal while memory is short.

        Raises:
            EdgedError: `low_memory`, with the figures and when to ask again.
        """
        if (refusal := self.low_memory()) is not None:
            raise refusal

    def check_limits(self, client: Client) -> None:
        """Refuse one request more than are allowed, of one client or in all, and any while it is too hot.

        Raises:
            EdgedError: `busy` or `too_hot`, with the figures and when to ask again.
        """
        if self.too_hot is not None:
            raise self.too_hot.with_traceback(None)
        limits = self._limits()
        active, running = list(self._registry.active()), self._dispatcher.running
        own = sum(ticket.client.identity == client.identity for ticket in active)
        own += self._visits[client.identity]
        waiting = len(active) - len(running) + self._visits.total()
        if own >= limits.per_client:
            own_running = sum(ticket.client.identity == client.identity for ticket in running)
            raise EdgedError(
                ErrorCode.BUSY,
                f"{own} of your requests are in hand; {limits.per_client} are allowed (limits.per_client)",
                retry_after_s=self._speed.wait_seconds(1, own_running),
            )
        if waiting >= limits.queue:
            raise EdgedError(
                ErrorCode.BUSY,
                f"{waiting} requests are waiting; {limits.queue} are allowed (limits.queue)",
                retry_after_s=self._speed.wait_seconds(1, len(running)),
            )


def stopping() -> EdgedError:
    """Return the refusal of what comes, or has not ended, when the daemon stops."""
    return EdgedError(ErrorCode.SHUTTING_DOWN, "edged is stopping; ask again when it is back")


def no_model(engine: Engine) -> EdgedError:
    """Return the refusal of what an engine that has failed will not compute."""
    supervisor = engine.supervisor
    reason = supervisor.reason or "the model can't be loaded"
    return EdgedError(ErrorCode.MODEL_UNAVAILABLE, reason, retry_after_s=supervisor.next_try_seconds)


def check_size(request: Request, limits: LimitsTable) -> None:
    """Refuse what is too large, before anything is computed.

    Raises:
        EdgedError: `too_large` or `invalid`, with both figures.
    """
    size = request.text_bytes()
    if size > limits.max_prompt_bytes:
        raise EdgedError(
            ErrorCode.TOO_LARGE,
            f"the prompt has {size} bytes; {limits.max_prompt_bytes} are allowed (limits.max_prompt_bytes)",
        )
    if request.max_tokens is not None and request.max_tokens > limits.max_tokens:
        raise invalid(
            f"max_tokens is {request.max_tokens}; {limits.max_tokens} are allowed (limits.max_tokens)",
            param="max_tokens",
        )
