"""The daemon's side of the engine: prompts in, generations that outlive the process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edged.engine.embeddings import Embedding
from edged.engine.generation import Generation, Prompt
from edged.engine.messages import Load, Message, Prefixes, Prepare, Prepared, Ready, Trim, Tune
from edged.engine.supervision.process import COMMAND, Death
from edged.engine.supervision.supervisor import State, Supervisor
from edged.engine.texts import Texts
from edged.engine.work import Work
from edged.errors import EdgedError, ErrorCode

if TYPE_CHECKING:
    from edged.engine.plan import EnginePlan

LEAST_DUTY = 0.01  # of the time, that an engine computes which is told to rest


class Engine:
    """Computes prompts and answers in a supervised child process.

    Attributes:
        plan: what was loaded, or is being.
        ready: what the engine said of itself when it was loaded; None while there is none.
        context: cells of one request, as of the last engine that was ready.
        n_tokens: tokens of its vocabulary.
        prefixes: state of its prefix cache; None while there is none.
        texts: asks it about tokens and templates.
        on_change: called when the engine became ready, died or failed.

    Args:
        planner: makes the plan of what to load; raises EdgedError when nothing can be.
        stall_seconds: an engine that owes an answer and is silent for so long is killed.
        command: the engine's program.
    """

    def __init__(
        self,
        planner: Callable[[], EnginePlan],
        *,
        stall_seconds: float,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._planner = planner
        self.plan: EnginePlan | None = None
        self.ready: Ready | None = None
        self.context = self.n_tokens = 0
        self.prefixes: Prefixes | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._speeds: dict[str, tuple[float, ...]] = {}  # by the plan's key
        self._orders: dict[type[Message], Message] = {}  # that outlive the process
        self._held = 0  # how many want nothing new begun
        self._trial: asyncio.Future[None] | None = None  # whether the plan that is tried out serves
        self.supervisor = Supervisor(
            plan=self._make_plan,
            learn=self._learn,
            listener=self,
            stall_seconds=stall_seconds,
            command=command,
        )
        self._work = Work(self.supervisor, self._serving)
        self.texts = Texts(self._work)

    @property
    def state(self) -> State:
        """Return the supervisor's state; a model that is only tried out does not make it failed."""
        state = self.supervisor.state
        return "starting" if self._trial is not None and state == "failed" else state

    @property
    def is_ready(self) -> bool:
        """Say whether the engine serves now, and begins what is new."""
        return self._serving() is not None and not self._held

    @property
    def speeds(self) -> tuple[float, ...] | None:
        """Return the tokens a second of the planned model with 1, 2, … threads; None: not measured."""
        return self._speeds.get(self.plan.key) if self.plan is not None else None

    @property
    def used_at(self) -> float:
        """Return by the monotonic clock when it was asked or answered last, or became ready."""
        return self._work.used_at

    async def run(self) -> None:
        """Keep the engine alive until cancelled."""
        await self.supervisor.run()

    async def prepare(self, messages: list[dict[str, str]] | None, raw: str | None = None) -> Prompt:
        """Return the prompt of a conversation put through the chat template, or of a raw text.

        Waits while the engine is starting.

        Raises:
            EdgedError: `invalid` (the template refuses it), `engine_crashed` or `model_unavailable`.
        """
        answer = await self._work.ask(Prepare(self._work.number(), messages, raw))
        assert isinstance(answer, Prepared)
        return Prompt(answer.tokens, answer.boundary)

    async def embed(self, texts: Sequence[str], on_begin: Callable[[], None]) -> list[Embedding]:
        """Return the embedding of each text; who is cancelled meanwhile cancels it in the engine.

        Args:
            texts: one or more.
            on_begin: called when the engine has them.

        Raises:
            EdgedError: `prompt_too_long`, `not_allowed` (the model isn't made for it), `low_memory`,
                `engine_crashed` or `model_unavailable`.
        """
        return await self._work.embed(texts, on_begin)

    def generate(self, generation: Generation) -> None:
        """Begin to compute an answer, or go on with it, now or as soon as the engine is ready."""
        self._work.generate(generation)

    def cancel(self, generation: Generation) -> bool:
        """End a generation with finish reason `cancelled`; say whether it is there to be ended."""
        return self._work.generations.cancel(generation)

    def put_back(self, generation: Generation) -> asyncio.Future[bool]:
        """Take a generation out of its stream without ending it, so that `generate` can go on with it later.

        Its watcher hears no more of it once it is out. Who gives up waiting leaves it where it is.

        Returns:
            What comes to be True when it is out, or False: it has ended, and its watcher knows.
        """
        return self._work.generations.put_back(generation)

    # --- for who governs the machine's means ---

    def tune(self, threads: int, threads_batch: int, duty: float) -> None:
        """Have so many threads used from the next step on, for this share of the time, with rests between.

        It holds until it is called again, for later processes, too.

        Args:
            threads: for answers.
            threads_batch: for prompts.
            duty: `LEAST_DUTY` to 1; a new request ends no rest.
        """
        duty = min(1.0, max(LEAST_DUTY, duty))
        self.supervisor.patience.duty = duty
        self._order(Tune(threads, threads_batch, duty))

    def evict(self, reason: str) -> None:
        """End the process and let nothing start one until `admit`; what is only tried out has failed."""
        self._fail_trial(EdgedError(ErrorCode.LOW_MEMORY, f"there is no memory for a model: {reason}"))
        self.supervisor.forbid(reason)
        self.on_change()

    def admit(self) -> None:
        """Let the engine be started again after `evict`."""
        self.supervisor.allow()

    def trim(self, prefix_bytes: int) -> None:
        """Have states kept for later prompts take no more than so many bytes, and freed memory given back.

        It holds until it is called again, for later processes, too; never more than what was planned.
        """
        self._order(Trim(prefix_bytes))

    # --- for operators ---

    def wake(self) -> None:
        """Have the model loaded again if it was unloaded."""
        self.supervisor.wake()

    def unload(self, reason: str = "unloaded by command") -> None:
        """End the process, so that its memory is free, until something is asked or `wake` is called."""
        self.supervisor.unload(reason)

    def restart(self, reason: str = "restarted by command") -> None:
        """Start a new process in place of the one that runs; what ran there goes on where it was."""
        self.supervisor.restart(reason)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Begin nothing new within the context: it waits, and what runs can come to its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self.on_change()

    async def try_plan(self, trying: contextlib.AbstractContextManager[None]) -> None:
        """Start again by the plan that holds within `trying`, and go back to the earlier one if that fails.

        Returns once the engine serves by the new plan. What ran and still runs ends with `model_unavailable`
        then if the model is another; what waits goes on waiting.

        Raises:
            EdgedError: `model_unavailable`: the engine can't serve by the new plan.
        """
        self._trial = asyncio.get_running_loop().create_future()
        try:
            with trying:
                self.supervisor.restart("another model is loaded")
                await self._trial
        except BaseException:
            self.supervisor.restart("the earlier model is loaded again")
            raise
        finally:
            self._trial = None

    # --- Listener ---

    def on_message(self, message: Message) -> None:
        """Hand the engine's word to whom it concerns."""
        if isinstance(message, Prefixes):
            self.prefixes = message
        else:
            self._work.take(message, self.ready)

    def on_ready(self, ready: Ready) -> None:
        """Send what waited for the engine, or lost an earlier one."""
        assert self.plan is not None
        self.ready = ready
        self.context, self.n_tokens = ready.context, ready.n_tokens
        if ready.speeds:
            self._speeds[self.plan.key] = tuple(ready.speeds)
        for order in self._orders.values():
            self.supervisor.send(order)
        self._work.begin(ready, self.plan.key)
        if self._trial is not None and not self._trial.done():
            self._trial.set_result(None)
        self.on_change()

    def on_death(self, reason: str, *, blameless: bool) -> None:
        """Keep what ran for the next life, but for what was running at two deaths."""
        self.ready = self.prefixes = None
        if not blameless:
            self._fail_trial(
                EdgedError(
                    ErrorCode.MODEL_UNAVAILABLE, f"the engine died while it loaded the model: {reason}"
                )
            )
        self._work.on_death(reason, blameless=blameless)
        self.on_change()

    def on_failed(self, error: EdgedError) -> None:
        """Refuse everything where waiting would not help, unless a model is only tried out."""
        self.ready = self.prefixes = None
        if self._trial is not None:
            self._fail_trial(error)
            return
        if error.code is not ErrorCode.LOW_MEMORY:
            self._work.fail(error)
        self.on_change()

    def is_waiting(self) -> bool:
        """Say whether the engine owes an answer."""
        return self._work.at_engine

    # --- the rest ---

    def _serving(self) -> Ready | None:
        """Return what the engine said of itself, None unless it serves now."""
        return self.ready if self.supervisor.state == "ready" else None

    def _fail_trial(self, error: EdgedError) -> None:
        if self._trial is not None and not self._trial.done():
            self._trial.set_exception(error)

    def _make_plan(self) -> Load:
        self.plan = self._planner()
        return replace(self.plan.load, measures=self.plan.key not in self._speeds)

    def _learn(self, death: Death) -> bool:
        """Remember what an engine died of; say whether the next plan is without it."""
        assert self.plan is not None
        if death.signal == signal.SIGILL and self.plan.load.repack:
            return self.plan.remember_repack_fault()
        if death.is_for_memory:
            self.plan.remember_oom()
        return death.is_for_memory

    def _order(self, order: Message) -> None:
        self._orders[type(order)] = order
        if self._serving() is not None:
            self.supervisor.send(order)
