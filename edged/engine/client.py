"""The daemon's side of the engine: prompts in, generations that outlive the process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from edged.engine.embeddings import Embedding, Embeddings
from edged.engine.generation import Generation
from edged.engine.messages import (
    Cancel,
    Delta,
    Detokenize,
    Embedded,
    Generate,
    Load,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Render,
    Said,
    Step,
    Tokenize,
    Tokenized,
)
from edged.engine.process import COMMAND
from edged.engine.questions import Answer, Question, Questions
from edged.engine.supervisor import State, Supervisor
from edged.errors import EdgedError, ErrorCode

if TYPE_CHECKING:
    from edged.engine.plan import EnginePlan

_log = structlog.get_logger(__name__)

MOST_DEATHS = 2  # a request that was running at so many is taken for the cause


class Engine:
    """Computes prompts and answers in a supervised child process.

    Attributes:
        plan: what was loaded, or is being.
        ready: what the engine said of itself when it was loaded; None while there is none.
        context: cells of one request, as of the last engine that was ready.
        n_tokens: tokens of its vocabulary.
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
        self.on_change: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        self._key = ""
        self._generations: dict[int, Generation] = {}
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

    async def prepare(self, messages: list[dict[str, str]] | None, raw: str | None = None) -> list[int]:
        """Return the tokens of a conversation put through the chat template, or of a raw text.

        Waits while the engine is starting.

        Raises:
            EdgedError: `invalid` (the template refuses it), `engine_crashed` or `model_unavailable`.
        """
        answer = await self._ask(Prepare(next(self._numbers), messages, raw))
        assert isinstance(answer, Prepared)
        return answer.tokens

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
        """Begin to compute an answer, or do so as soon as the engine is ready."""
        generation.number = next(self._numbers)
        self._expect_answer()
        self._generations[generation.number] = generation
        if self._serves:
            self._send_generation(generation)

    def cancel(self, generation: Generation) -> None:
        """End a generation with finish reason `cancelled`."""
        if generation.number not in self._generations or generation.cancelled:
            return
        generation.cancelled = True
        if generation.at_engine:
            self.supervisor.send(Cancel(generation.number))
        else:
            self._end_cancelled(generation)

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
                for number, done, _ in message.reading:
                    if generation := self._generations.get(number):
                        generation.watcher.on_reading(done)
                for delta in message.deltas:
                    self._on_delta(delta)
            case Prepared() | Tokenized() | Said():
                self._questions.settle(message.request, message)
            case Embedded():
                if self._embeddings.take(message):
                    self.supervisor.forgive()
            case Refused():
                error = EdgedError(ErrorCode(message.code), message.message)
                if not self._embeddings.refuse(message.request, error):
                    self._questions.settle(message.request, error)
            case _:
                _log.warning("unexpected message from the engine", name=type(message).__name__)

    def on_ready(self, ready: Ready) -> None:
        """Send what waited for the engine, or lost an earlier one."""
        assert self.plan is not None
        self.ready = ready
        self.context, self.n_tokens = ready.context, ready.n_tokens
        self._questions.begin()
        before, self._key = self._key, self.plan.key
        if before not in ("", self._key):
            self._fail_all(
                EdgedError(
                    ErrorCode.MODEL_UNAVAILABLE, "the model was changed while this request ran; ask again"
                )
            )
        for generation in list(self._generations.values()):
            self._send_generation(generation)
        self._embeddings.begin()
        if self._trial is not None and not self._trial.done():
            self._trial.set_result(None)
        self.on_change()

    def on_death(self, reason: str, *, blameless: bool) -> None:
        """Keep what ran for the next life, but for what was running at two deaths."""
        self.ready = None
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
        for generation in list(self._generations.values()):
            generation.deaths += generation.at_engine and not blameless
            generation.at_engine = False
            if generation.cancelled:
                self._end_cancelled(generation)
            elif generation.deaths >= MOST_DEATHS:
                self._fail(generation, error)
        self.on_change()

    def on_failed(self, error: EdgedError) -> None:
        """Refuse everything: waiting would not help, unless a model is only tried out."""
        self.ready = None
        if self._trial is not None:
            self._fail_trial(error)
            return
        self._questions.fail(error)
        self._fail_all(error)
        self.on_change()

    def is_waiting(self) -> bool:
        """Say whether the engine owes an answer."""
        return (
            self._questions.at_engine
            or self._embeddings.at_engine
            or any(one.at_engine for one in self._generations.values())
        )

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

    def _expect_answer(self) -> None:
        self.wake()
        if not self.is_waiting():
            self.supervisor.expect_answer()

    async def _ask(self, question: Question) -> Answer:
        self._expect_answer()
        return await self._questions.ask(question, engine_serves=self._serves)

    def _send_generation(self, generation: Generation) -> None:
        assert self.ready is not None
        length = len(generation.prompt) + len(generation.produced)
        if length >= self.context:  # an earlier life had more memory
            self._fail(
                generation,
                EdgedError(
                    ErrorCode.PROMPT_TOO_LONG,
                    f"prompt and answer have {length} tokens by now, and the context shrank to "
                    f"{self.context} when the engine was started again; shorten the prompt",
                ),
            )
            return
        self.supervisor.send(
            Generate(
                request=generation.number,
                prompt=generation.prompt,
                boundary=0,
                produced=generation.produced,
                max_tokens=generation.max_tokens,
                stop=[*generation.stop, *self.ready.stops],
                sampling=generation.sampling,
                top_logprobs=generation.top_logprobs,
            )
        )
        generation.at_engine = True

    def _on_delta(self, delta: Delta) -> None:
        generation = self._generations.get(delta.request)
        if generation is None:
            return
        generation.produced += delta.tokens
        if delta.finish is not None:
            del self._generations[delta.request]
            if delta.finish != "cancelled":
                self.supervisor.forgive()
        generation.watcher.on_delta(delta)

    def _end_cancelled(self, generation: Generation) -> None:
        self._on_delta(Delta(generation.number, [], "", [], "cancelled"))

    def _fail_all(self, error: EdgedError) -> None:
        self._embeddings.fail(error)
        for generation in list(self._generations.values()):
            if generation.cancelled:
                self._end_cancelled(generation)
            else:
                self._fail(generation, error)

    def _fail(self, generation: Generation, error: EdgedError) -> None:
        del self._generations[generation.number]
        generation.watcher.on_failed(error)
