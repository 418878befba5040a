"""The engine's process: `python -m edged.engine.worker FD DAEMON_PID`, started by the supervisor.

The main thread loads the model and computes; a second one reads messages, so that a
cancellation can stop the decode that is running. It ends when the socketpair closes.
"""

from __future__ import annotations

import faulthandler
import json
import queue
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.engine.confine import ConfinementError, deny_syscalls, keep_to, lower_priority
from edged.engine.messages import (
    STACKS_SIGNAL,
    Cancel,
    Decoder,
    Detokenize,
    Embed,
    Generate,
    Heartbeat,
    Left,
    Load,
    LoadFailed,
    Loading,
    Message,
    Prefixes,
    Prepare,
    Prepared,
    ProtocolError,
    PutBack,
    Ready,
    Refused,
    Render,
    Tokenize,
    Trim,
    Tune,
    encode,
)
from edged.engine.reclaim import leave_mapped, trim_heap
from edged.errors import EdgedError

if TYPE_CHECKING:
    from edged.engine.boundary import Boundaries
    from edged.engine.embedder import Embedder
    from edged.engine.llama import Context, Model, Vocabulary
    from edged.engine.prompt import PromptBuilder
    from edged.engine.scheduler import Scheduler
    from edged.engine.texts import Texts

HEARTBEAT_SECONDS = 5.0
WARM_UP_TOKENS = 64
STACK_BYTES = (
    64 << 20
)  # 64 KiB of one letter overflow 16 MiB with deepseek's vocabulary; only what is used counts


def log(level: str, event: str, **fields: Any) -> None:
    """Write a line to the pipe that the daemon logs from."""
    sys.stderr.write(json.dumps({"level": level, "event": event, **fields}) + "\n")
    sys.stderr.flush()


class Channel:
    """The engine's end of the socketpair.

    Attributes:
        inbox: messages that have come; None once the daemon has closed its end.
        on_cancel: called in the reading thread for each Cancel, before it is in the inbox.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()
        self.inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self.on_cancel: Callable[[int], None] = lambda request: None

    def first(self) -> Message | None:
        """Return the first message; None if the daemon has gone."""
        while data := self._sock.recv(1 << 16):
            if messages := self._decoder.feed(data):
                for message in messages[1:]:
                    self.inbox.put(message)
                return messages[0]
        return None

    def start(self) -> None:
        """Begin to read in a thread of its own."""
        threading.Thread(target=self._read, name="messages", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send a message; waits while the daemon doesn't read."""
        self._sock.sendall(encode(message))

    def _read(self) -> None:
        try:
            while data := self._sock.recv(1 << 16):
                for message in self._decoder.feed(data):
                    if isinstance(message, Cancel):
                        self.on_cancel(message.request)
                    self.inbox.put(message)
        except (OSError, ProtocolError) as error:
            log("error", "the daemon's messages can't be read", reason=str(error))
        finally:
            self.inbox.put(None)


class Worker:
    """Serves the daemon's messages with a loaded model.

    Args:
        channel: to the daemon.
        vocabulary: the model's tokens.
        prompts: makes prompts.
        boundaries: finds the ends of their system texts.
        texts: answers questions about texts.
        embedder: computes embeddings.
        scheduler: computes answers; None where the model can't.
    """

    def __init__(
        self,
        channel: Channel,
        vocabulary: Vocabulary,
        prompts: PromptBuilder,
        boundaries: Boundaries,
        *,
        texts: Texts,
        embedder: Embedder,
        scheduler: Scheduler | None,
    ) -> None:
        self._channel = channel
        self._vocabulary = vocabulary
        self._prompts = prompts
        self._boundaries = boundaries
        self._texts = texts
        self._embedder = embedder
        self._scheduler = scheduler
        self._prefixes: Prefixes | None = None  # as the daemon knows them
        self._pause_seconds = 0.0
        self._rests_until = 0.0  # by the monotonic clock; the next step comes then
        channel.on_cancel = self._interrupt

    def serve(self) -> None:
        """Compute until the daemon closes the channel.

        Messages come before the next step; but of those about texts, which take their time, one a step.
        """
        if self._scheduler is not None:
            self._tell_prefixes(self._scheduler.prefixes)
        while True:
            try:
                message = self._next()
            except queue.Empty:
                pass
            else:
                if message is None:
                    return
                self._handle(message)
                if not isinstance(message, Prepare | Tokenize | Detokenize | Render | Embed):
                    continue
            if self._rest() <= 0:
                self._step()

    def _rest(self) -> float:
        return self._rests_until - time.monotonic()

    def _next(self) -> Message | None:
        """Return a message; wait for one only while there is nothing to compute, or a pause to keep.

        Raises:
            queue.Empty: there is none now.
        """
        if self._generates or self._embedder.has_work:
            return self._channel.inbox.get(timeout=max(0.0, self._rest()))
        return self._channel.inbox.get(timeout=HEARTBEAT_SECONDS)

    @property
    def _generates(self) -> bool:
        return self._scheduler is not None and self._scheduler.has_work

    def _step(self) -> None:
        """Compute a step of the answers and a pass of the embeddings, and say at least that it lives."""
        if generates := self._generates:
            assert self._scheduler is not None
            self._channel.send(self._scheduler.step())
            self._tell_prefixes(self._scheduler.prefixes)
        embedded = self._embedder.step(others_wait=generates) if self._embedder.has_work else []
        for message in embedded:
            self._channel.send(message)
        if not generates and not embedded:
            if self._scheduler is not None:
                self._scheduler.check()
            self._channel.send(Heartbeat())
        self._rests_until = time.monotonic() + self._pause_seconds

    def _tell_prefixes(self, prefixes: Prefixes) -> None:
        if prefixes != self._prefixes:
            self._prefixes = prefixes
            self._channel.send(prefixes)

    def _interrupt(self, request: int) -> None:
        self._embedder.interrupt(request)
        if self._scheduler is not None:
            self._scheduler.interrupt(request)

    def _handle(self, message: Message) -> None:
        match message:
            case Prepare():
                self._channel.send(self._prepare(message))
            case Tokenize() | Detokenize() | Render():
                self._channel.send(self._texts.answer(message))
            case Embed():
                if refusal := self._embedder.add(message):
                    self._channel.send(refusal)
            case Generate() if self._scheduler is not None:
                self._generate(message, self._scheduler)
            case Cancel():
                self._embedder.cancel(message.request)
                if self._scheduler is not None:
                    self._scheduler.cancel(message.request)
            case PutBack() if self._scheduler is not None:
                if self._scheduler.put_back(message.request):
                    self._channel.send(Left(message.request))
            case Tune():
                self._pause_seconds = message.pause_milliseconds / 1000
                self._embedder.tune(message.threads, message.threads_batch)
                if self._scheduler is not None:
                    self._scheduler.tune(message.threads, message.threads_batch)
            case Trim():
                self._embedder.trim()
                if self._scheduler is not None:
                    self._scheduler.limit_prefixes(message.prefix_bytes)
                    self._tell_prefixes(self._scheduler.prefixes)
                trim_heap()
            case _:
                log("warning", "unexpected message", name=type(message).__name__)

    def _prepare(self, message: Prepare) -> Message:
        from edged.engine.texts import no_text

        try:
            if self._scheduler is None:
                raise no_text()
            if message.raw is not None:
                return Prepared(message.request, self._prompts.raw(message.raw), 0)
            messages = message.messages or []
            tokens = self._prompts.build(messages)
            return Prepared(message.request, tokens, self._boundaries.find(messages, tokens))
        except EdgedError as error:
            return Refused(message.request, error.code, error.message)

    def _generate(self, message: Generate, scheduler: Scheduler) -> None:
        from edged.engine.assembler import Assembler
        from edged.engine.llama import Sampler, SamplingParams
        from edged.engine.sequence import Sequence

        params = SamplingParams(**message.sampling)
        sampler = Sampler(self._vocabulary, params, message.prompt, message.max_tokens)
        assembler = Assembler(message.stop)
        for token in message.produced:  # their text was shown in an earlier life
            sampler.accept(token)
            assembler.feed(token, self._vocabulary.piece(token))
        scheduler.add(
            Sequence(
                request=message.request,
                tokens=[*message.prompt, *message.produced],
                prompt_length=len(message.prompt),
                sampler=sampler,
                assembler=assembler,
                max_tokens=message.max_tokens,
                top_logprobs=message.top_logprobs,
                boundary=message.boundary,
            )
        )


def warm_up(context: Context, vocabulary: Vocabulary) -> float:
    """Run the kernels for one token and for many, so that a bad one dies before a request comes.

    Returns:
        The seconds that a prompt token cost.
    """
    from edged.engine.llama import Run

    token = vocabulary.bos or 0
    context.decode([Run(0, 0, [token], wants_logits=True)])
    started = time.monotonic()
    context.decode([Run(0, 1, [token] * WARM_UP_TOKENS, wants_logits=True)])
    seconds = time.monotonic() - started
    context.cut(0, 0)
    return seconds / WARM_UP_TOKENS


def open_model(stack: ExitStack, load: Load, channel: Channel) -> tuple[Model, Context | None]:
    """Load the weights, telling the daemon how far it is, and make the context for answers.

    Returns:
        The model, and the context; None where the model can't generate.

    Raises:
        LlamaError: the library can't load it.
    """
    from edged.engine import llama
    from edged.engine.llama.embedding import goes_on

    stack.enter_context(llama.library(lambda level, line: log(level, line, source="llama.cpp")))
    told = 0.0

    def progress(share: float) -> None:
        nonlocal told
        if share - told >= 0.05:
            told = share
            channel.send(Loading(share))

    model = stack.enter_context(
        llama.Model(Path(load.path), use_extra_bufts=load.repack, on_progress=progress)
    )
    leave_mapped(Path(load.path))  # most of it has a repacked copy, the rest comes back by the warm-up
    trim_heap()  # of what the file's metadata took
    if not model.has_decoder:
        return model, None
    context = llama.Context(
        model,
        context=load.context,
        sequences=load.sequences,
        batch_tokens=load.batch_tokens,
        ubatch_tokens=load.ubatch_tokens,
        threads=load.threads,
        threads_batch=load.threads_batch,
        kv_type=load.kv_type,
        flash_attention=load.flash_attention,
    )
    if goes_on(context):
        return model, stack.enter_context(context)
    with context:
        return model, None


def open_scheduler(context: Context, load: Load, vocabulary: Vocabulary) -> Scheduler:
    """Warm the kernels up and return what computes answers."""
    from edged.engine.pace import Pace
    from edged.engine.prefixes import PrefixStore
    from edged.engine.reuse import Reuse
    from edged.engine.runner import LlamaRunner
    from edged.engine.scheduler import Scheduler
    from edged.engine.streams import Streams

    token_seconds = warm_up(context, vocabulary)
    pace = Pace(
        step_seconds=load.step_milliseconds / 1000,
        most_tokens=load.batch_tokens,
        token_seconds=token_seconds,
    )
    reuse = Reuse(context.cutting, load.deterministic)
    store = PrefixStore(load.prefix_bytes, context.cutting)
    return Scheduler(
        LlamaRunner(vocabulary, context),
        pace,
        Streams(context, load.sequences, reuse, store),
        context=context.context,
        deterministic=load.deterministic,
    )


def run(channel: Channel, load: Load) -> None:
    """Load the model, say so, and serve."""
    from edged.engine.boundary import Boundaries
    from edged.engine.embedder import open_embedder
    from edged.engine.llama import LlamaError
    from edged.engine.llama.embedding import dimensions_of, pooling_of
    from edged.engine.prompt import PromptBuilder
    from edged.engine.template import PLAIN_STOPS, PLAIN_TEMPLATE, ChatTemplate
    from edged.engine.texts import Texts

    started = time.monotonic()
    with ExitStack() as stack:
        try:
            model, context = open_model(stack, load, channel)
            vocabulary = model.vocabulary
            source = model.chat_template
            template = ChatTemplate(
                source or PLAIN_TEMPLATE,
                bos_text=vocabulary.text(vocabulary.bos) if vocabulary.bos is not None else "",
                eos_text=vocabulary.text(vocabulary.eos) if vocabulary.eos is not None else "",
            )
            prompts = PromptBuilder(vocabulary, template)
            embedder = open_embedder(stack, load, model, prompts, generates=context is not None)
            scheduler = open_scheduler(context, load, vocabulary) if context is not None else None
        except (LlamaError, EdgedError) as error:
            channel.send(LoadFailed(str(error)))
            return
        channel.send(
            Ready(
                context=context.context if context is not None else load.context,
                template="model" if source else "plain",
                stops=[] if source else list(PLAIN_STOPS),
                n_tokens=vocabulary.n_tokens,
                load_seconds=time.monotonic() - started,
                prefix_reuse=context.cutting if context is not None else "whole",
                generates=scheduler is not None,
                pooling=pooling_of(model),
                dimensions=dimensions_of(model),
            )
        )
        Worker(
            channel,
            vocabulary,
            prompts,
            Boundaries(prompts),
            texts=Texts(vocabulary, prompts, template if scheduler is not None else None),
            embedder=embedder,
            scheduler=scheduler,
        ).serve()


def main() -> None:
    """Confine the process, then serve the daemon at the other end of the given descriptor."""
    # The daemon decides when the engine ends; a signal to the whole group must not cut answers off.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(STACKS_SIGNAL)
    deepen_stack()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    load = channel.first()
    if not isinstance(load, Load):
        return
    try:
        confine(load, daemon=int(sys.argv[2]))
        channel.start()
        run(channel, load)
    except (BrokenPipeError, ProcessLookupError):
        pass  # the daemon is gone
    except Exception as error:  # the daemon starts the engine again; this is for its log
        log("error", "the engine failed", reason=f"{type(error).__name__}: {error}")
        raise SystemExit(1) from None


def deepen_stack() -> None:
    """Let the main thread's stack grow: some tokenisers recurse over every character of a long word."""
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, most))


def confine(load: Load, daemon: int) -> None:
    """Give up, while there is one thread, what computing does not need; say what this machine can't take."""
    model_directory = Path(load.path).resolve().parent

    def keep_to_model() -> None:
        if not keep_to([model_directory]):
            raise ConfinementError("the kernel has no Landlock: the engine may read what the daemon may")

    steps: tuple[Callable[[], None], ...] = (lambda: lower_priority(daemon), keep_to_model, deny_syscalls)
    for give_up in steps:
        try:
            give_up()
        except ProcessLookupError:
            raise
        except (ConfinementError, OSError) as error:
            log("warning", "the engine is less confined than it could be", reason=str(error))


if __name__ == "__main__":
    main()
