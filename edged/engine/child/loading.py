"""From a model's file to an engine that serves."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from edged import heap
from edged.engine.child.boundary import Boundaries
from edged.engine.child.channel import Channel, log
from edged.engine.child.embedder import open_embedder
from edged.engine.child.llama import (
    Context,
    LlamaError,
    Model,
    Run,
    Vocabulary,
    kernel_build,
    kernels,
    library,
)
from edged.engine.child.llama.embedding import dimensions_of, goes_on, pooling_of
from edged.engine.child.pace import Pace
from edged.engine.child.prefixes import PrefixStore
from edged.engine.child.reclaim import leave_mapped
from edged.engine.child.reuse import Reuse
from edged.engine.child.runner import LlamaRunner
from edged.engine.child.scheduler import Scheduler
from edged.engine.child.server import Server
from edged.engine.child.streams import Streams
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.template import PLAIN_STOPS, PLAIN_TEMPLATE, ChatTemplate
from edged.engine.child.text.texts import Texts
from edged.engine.messages import Load, LoadFailed, Loading, Ready
from edged.errors import EdgedError

WARM_UP_TOKENS = 64
MEASURED_PASSES = 3


def warm_up(context: Context, vocabulary: Vocabulary) -> float:
    """Run the kernels for one token and for many, so that a bad one dies before a request comes.

    Returns:
        The seconds that a prompt token cost.
    """
    token = vocabulary.bos or 0
    context.decode([Run(0, 0, [token], wants_logits=True)])
    started = time.monotonic()
    context.decode([Run(0, 1, [token] * WARM_UP_TOKENS, wants_logits=True)])
    seconds = time.monotonic() - started
    context.cut(0, 0)
    return seconds / WARM_UP_TOKENS


def measured_speeds(context: Context, vocabulary: Vocabulary, load: Load) -> list[float]:
    """Return the tokens a second of one stream with 1, 2, … threads, the best of some passes each."""
    found, token = [], vocabulary.bos or 0
    for threads in range(1, load.threads + 1):
        context.set_threads(threads, load.threads_batch)
        passes = []
        for position in range(MEASURED_PASSES):
            started = time.monotonic()
            context.decode([Run(0, position, [token], wants_logits=True)])
            passes.append(time.monotonic() - started)
        context.cut(0, 0)
        found.append(1 / min(passes))
    return found


def open_model(stack: ExitStack, load: Load, channel: Channel) -> tuple[Model, Context | None]:
    """Load the weights, telling the daemon how far it is, and make the context for answers.

    Returns:
        The model, and the context; None where the model can't generate.

    Raises:
        LlamaError: the library can't load it.
    """
    stack.enter_context(library(lambda level, line: log(level, line, source="llama.cpp")))
    told = 0.0

    def progress(share: float) -> None:
        nonlocal told
        if share - told >= 0.05:
            told = share
            channel.send(Loading(share))

    model = stack.enter_context(Model(Path(load.path), use_extra_bufts=load.repack, on_progress=progress))
    leave_mapped(Path(load.path))  # most of it has a repacked copy, the rest comes back by the warm-up
    heap.trim()  # of what the file's metadata took
    if not model.has_decoder:
        return model, None
    context = Context(
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
    token_seconds = warm_up(context, vocabulary)
    pace = Pace(
        step_seconds=load.step_milliseconds / 1000,
        most_tokens=load.batch_tokens,
        token_seconds=token_seconds,
    )
    reuse = Reuse(context.cutting, load.deterministic)
    store = PrefixStore(load.prefix_bytes, context.cutting)
    return Scheduler(
        LlamaRunner(
            vocabulary,
            context,
            load.threads,
            load.threads_batch,
            gives_way=not load.deterministic,  # how many threads compute may change the last bits
        ),
        pace,
        Streams(context, load.sequences, reuse, store),
        context=context.context,
        deterministic=load.deterministic,
    )


def run(channel: Channel, load: Load) -> None:
    """Load the model, say so, and serve."""
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
            speeds, scheduler = [], None
            if context is not None:
                speeds = measured_speeds(context, vocabulary, load) if load.measures else []
                scheduler = open_scheduler(context, load, vocabulary)
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
                kernels=kernels(),
                kernel_build=kernel_build(),
                speeds=speeds,
            )
        )
        Server(
            channel,
            vocabulary,
            prompts,
            Boundaries(prompts),
            texts=Texts(vocabulary, prompts, template if scheduler is not None else None),
            embedder=embedder,
            scheduler=scheduler,
        ).serve()
