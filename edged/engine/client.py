"""The daemon's side of the engine: prompts in, generations that outlive the process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from edged.engine.embeddings import Embedding, Embeddings
from edged.engine.generation import Generation, Prompt, model_changed
from edged.engine.generations import Generations
from edged.engine.messages import (
    Detokenize,
    Embedded,
    Left,
    Load,
    Message,
    Prefixes,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Render,
    Said,
    Step,
    Tokenize,
    Tokenized,
    Trim,
    Tune,
)
from edged.engine.questions import Answer, Question, Questions
from edged.engine.supervision.process import COMMAND
from edged.engine.supervision.supervisor import State, Supervisor
from edged.errors import EdgedError, ErrorCode

if TYPE_CHECKING:
    from edged.engine.plan import EnginePlan

_log = structlog.get_logger(__name__)

MOST_PAUSE_MILLISECONDS = 5000
MOST_DEATHS = 2  # a request that was running at so many is taken for the cause


class Engine:
    """Computes prompts and answers in a supervised child process.

    Attributes:
        plan: what was loaded, or is being.
        ready: what the engine said of itself when it was loaded; None while there is none.
        context: cells of one request, as of the last engine that was ready.
        n_tokens: tokens of its vocabulary.
        prefixes: state of its prefix cache; None while there is none.
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
        self._numbers = itertools.count(1)
        self._key = ""
        self._orders: dict[type[Message], Message] = {}  # that outlive the process
        self._held = False  # nothing new is to be begun
        self._trial: asyncio.Future[None] | None = None  # whether the plan that is tried out serves
        self.supervisor = Supervisor(
            plan=self._make_plan,
            on_illegal_instruction=self._on_illegal_instruction,
            listener=self,
            stall_seconds=stall_seconds,
            command=command,
        )
        self._questions = Questions(self.supervisor.send, most_deaths=MOST_DEATHS)
        self._embeddings = Embeddings(self.supervisor.send, most_deaths=MOST_DEATHS)
        self._generations = Generations(
            self.supervisor.send, self.supervisor.forgive, most_deaths=MOST_DEATHS
        )

    @property
    def state(self) -> State:
        """Return the supervisor's state; a model that is only tried out does not make it failed."""
        state = self.supervisor.state
        return "starting" if self._trial is not None and state == "failed" else state

    @property
    def is_ready(self) -> bool:
        """Say whether the engine serves now, and begins what is new."""
        return self._serves and not self._held

    @property
    def _serves(self) -> bool:
        return self.ready is not None and self.supervisor.state == "ready"

    async def run(self) -> None:
        """Keep the engine alive until cancelled."""
        await self.supervisor.run()

    async def prepare(self, messages: list[dict[str, str]] | None, raw: str | None = None) -> Prompt:
        """Return the prompt of a conversation put through the chat template, or of a raw text.

        Waits while the engine is starting.

        Raises:
            EdgedError: `invalid` (the template refuses it), `engine_crashed` or `model_unavailable`.
        """
        answer = await self._ask(Prepare(next(self._numbers), messages, raw))
        assert isinstance(answer, Prepared)
        return Prompt(answer.tokens, answer.boundary)

    async def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> tuple[list[int], list[bytes] | None]:
        """Return the tokens of a text and, if wanted, the bytes that each stands for.

        Args:
            text: what to split.
            add_special: put around it what the model wants there.
            parse_special: read the texts of control tokens as those tokens.
            with_pieces: return the bytes, too.

        Raises:
            EdgedError: `invalid`, `engine_crashed` or `model_unavailable`.
        """
        number = next(self._numbers)
        answer = await self._ask(Tokenize(number, text, add_special, parse_special, with_pieces))
        assert isinstance(answer, Tokenized)
        pieces = None if answer.pieces is None else [piece.encode("latin-1") for piece in answer.pieces]
        return answer.tokens, pieces

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens; what is not whole UTF-8 is shown with U+FFFD.

        Raises:
            EdgedError: `invalid` (the model has no such token), `engine_crashed` or `model_unavailable`.
        """
        answer = await self._ask(Detokenize(next(self._numbers), list(tokens)))
        assert isinstance(answer, Said)
        return answer.text

    async def render(self, messages: list[dict[str, str]]) -> str:
        """Return a conversation put through the chat template.

        Raises:
            EdgedError: `invalid` (the template refuses it), `not_allowed` (the model does not generate),
                `engine_crashed` or `model_unavailable`.
        """
        answer = await self._ask(Render(next(self._numbers), messages))
        assert isinstance(answer, Said)
        return answer.text

    async def embed(self, texts: Sequence[str], on_begin: Callable[[], None]) -> list[Embedding]:
        """Return the embedding of each text; who is cancelled meanwhile cancels it in the engine.

        Args:
            texts: one or more.
            on_begin: called when the engine has them.

        Raises:
            EdgedError: `prompt_too_long`, `not_allowed` (the model isn't made for it), `low_memory`,
                `engine_crashed` or `model_unavailable`.
        """
        self._expect_answer()
        number = next(self._numbers)
        return await self._embeddings.embed(number, texts, on_begin, engine_serves=self._serves)

    def generate(self, generation: Generation) -> None:
        """Begin to compute an answer, or go on with it, now or as soon as the engine is ready."""
        generation.number = next(self._numbers)
        self._expect_answer()
        self._generations.add(generation, self.ready if self._serves else None)

    def cancel(self, generation: Generation) -> bool:
        """End a generation with finish reason `cancelled`; say whether it is there to be ended."""
        return self._generations.cancel(generation)

    def put_back(self, generation: Generation) -> asyncio.Future[bool]:
        """Take a generation out of its stream without ending it, so that `generate` can go on with it later.

        Its watcher hears no more of it once it is out. Who gives up waiting leaves it where it is.

        Returns:
            What comes to be True when it is out, or False: it has ended, and its watcher knows.
        """
        return self._generations.put_back(generation)

    # --- for who governs the machine's means ---

    def tune(self, threads: int, threads_batch: int, pause_milliseconds: int) -> None:
        """Have so many threads used from the next step on, and rest so long between steps.

        It holds until it is called again, for later processes, too.

        Args:
            threads: for answers.
            threads_batch: for prompts.
            pause_milliseconds: at most `MOST_PAUSE_MILLISECONDS`; a new request ends no pause.
        """
        pause_milliseconds = min(pause_milliseconds, MOST_PAUSE_MILLISECONDS)
        self.supervisor.patience.pause_seconds = pause_milliseconds / 1000
        self._order(Tune(threads, threads_batch, pause_milliseconds))

    def trim(self, prefix_bytes: int) -> None:
        """Have states kept for later prompts take no more than so many bytes, and freed memory given back.

        It holds until it is called again, for later processes, too; never more than what was planned.
        """
        self._order(Trim(prefix_bytes))

    # --- for operators ---

    def wake(self) -> None:
        """Have the model loaded again if it was unloaded."""
        self.supervisor.wake()

    def unload(self) -> None:
        """End the process, so that its memory is free, until something is asked or `wake` is called."""
        self.supervisor.unload("unloaded by command")

    def restart(self) -> None:
        """Start a new process in place of the one that runs; what ran there goes on where it was."""
        self.supervisor.restart("restarted by command")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Begin nothing new within the context: it waits, and what runs can come to its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
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
        """Hand the engine's word to whom it concerns; the ended are nobody's concern."""
        match message:
            case Step():
                self._generations.take(message)
            case Left() if self.ready is not None:
                self._generations.left(message.request, self.ready)
            case Prefixes():
                self.prefixes = message
            case Prepared() | Tokenized() | Said():
                self._questions.settle(message.request, message)
            case Embedded():
                if self._embeddings.take(message):
                    self.supervisor.forgive()
            case Refused():
                error = EdgedError(message.code, message.message)
                if not self._embeddings.refuse(message.request, error):
                    self._questions.settle(message.request, error)
            case _:
                _log.warning("unexpected message from the engine", name=type(message).__name__)

    def on_ready(self, ready: Ready) -> None:
        """Send what waited for the engine, or lost an earlier one."""
        assert self.plan is not None
        self.ready = ready
        self.context, self.n_tokens = ready.context, ready.n_tokens
        for order in self._orders.values():
            self.supervisor.send(order)
        self._questions.begin()
        before, self._key = self._key, self.plan.key
        if before not in ("", self._key):
            self._fail_all(model_changed())
        self._generations.begin(ready)
        self._embeddings.begin()
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
        error = EdgedError(
            ErrorCode.ENGINE_CRASHED,
            f"the engine died {MOST_DEATHS} times while it worked on this request (last: {reason}); "
            "the log says more",
        )
        self._questions.on_death(error, blameless=blameless)
        self._embeddings.on_death(error, blameless=blameless)
        self._generations.on_death(error, blameless=blameless)
        self.on_change()

    def on_failed(self, error: EdgedError) -> None:
        """Refuse everything: waiting would not help, unless a model is only tried out."""
        self.ready = self.prefixes = None
        if self._trial is not None:
            self._fail_trial(error)
            return
        self._questions.fail(error)
        self._fail_all(error)
        self.on_change()

    def is_waiting(self) -> bool:
        """Say whether the engine owes an answer."""
        return self._questions.at_engine or self._embeddings.at_engine or self._generations.at_engine

    # --- the rest ---

    def _fail_trial(self, error: EdgedError) -> None:
        if self._trial is not None and not self._trial.done():
            self._trial.set_exception(error)

    def _make_plan(self) -> Load:
        self.plan = self._planner()
        return self.plan.load

    def _on_illegal_instruction(self) -> bool:
        assert self.plan is not None
        return self.plan.remember_repack_fault()

    def _order(self, order: Message) -> None:
        self._orders[type(order)] = order
        if self._serves:
            self.supervisor.send(order)

    def _expect_answer(self) -> None:
        self.wake()
        if not self.is_waiting():
            self.supervisor.expect_answer()

    async def _ask(self, question: Question) -> Answer:
        self._expect_answer()
        return await self._questions.ask(question, engine_serves=self._serves)

    def _fail_all(self, error: EdgedError) -> None:
        self._embeddings.fail(error)
        self._generations.fail(error)
