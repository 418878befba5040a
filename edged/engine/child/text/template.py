"""Chat templates: from a conversation to the text that the model was trained to continue."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn, TypeVar

from jinja2 import TemplateError, TemplateSyntaxError

from edged.engine.child.text.sandbox import LimitExceeded, Sandbox
from edged.errors import invalid

T = TypeVar("T")

# For models that bring no template. Plain words mark the turns, so only stop strings end an answer.
PLAIN_TEMPLATE = """\
{% for message in messages %}
{% if message.role == 'user' %}
User: {{ message.content }}

{% elif message.role == 'assistant' %}
Assistant: {{ message.content }}

{% else %}
{{ message.content }}

{% endif %}
{% endfor %}
Assistant:"""
PLAIN_STOPS = ("\nUser:", "\nAssistant:")

RENDER_SECONDS = 1.0
COMPILE_SECONDS = 10.0  # done once, at the start, when a slow device is busy with much else
OUTPUT_PER_INPUT = 8
OUTPUT_AT_LEAST = 65536
_REPEAT_SECONDS = 0.05  # an alarm that strikes inside a destructor is lost, so there is another
_SHOWN_CHARACTERS = 200


class ChatTemplate:
    """A model's chat template, compiled and kept within bounds of time and size.

    The bound on time is an alarm signal, which only the main thread can have; a render in
    another thread has none.

    Args:
        source: the template, in Jinja.
        bos_text, eos_text: texts of the tokens that begin and end a text ("" where there is none).
        seconds: how long a render may take.

    Attributes:
        source: the template as given.
        bos_text: as given.

    Raises:
        EdgedError: `invalid`: the source is no template, or takes too much to compile.
    """

    def __init__(self, source: str, *, bos_text: str, eos_text: str, seconds: float = RENDER_SECONDS) -> None:
        self.source = source
        self.bos_text = bos_text
        self._seconds = seconds
        self._sandbox = Sandbox()
        self._sandbox.globals |= {
            "bos_token": bos_text,
            "eos_token": eos_text,
            "add_generation_prompt": True,
            # Templates ask whether these are none, not whether they are defined.
            "tools": None,
            "documents": None,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self._template = self._run(COMPILE_SECONDS, len(source), lambda: self._sandbox.from_string(source))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Return the conversation as text, up to where the assistant's answer begins.

        Args:
            messages: turns with role, content and perhaps name.

        Raises:
            EdgedError: `invalid`: the template refuses the conversation, fails on it, or takes
                too much time or space.
        """
        characters = sum(len(text) for message in messages for text in message.values())
        context = self._template.new_context({"messages": [dict(message) for message in messages]})
        # Not Template.render: on an error it imports jinja's debugger to rewrite the traceback.
        return self._run(
            self._seconds,
            OUTPUT_PER_INPUT * characters + len(self.source),
            lambda: self._sandbox.join(self._template.root_render_func(context)),
        )

    def _run(self, seconds: float, characters: int, work: Callable[[], T]) -> T:
        self._sandbox.allow(OUTPUT_AT_LEAST + characters)
        try:
            return _within(seconds, work)
        except LimitExceeded as error:
            why = str(error)
        except _RefusedError as error:
            why = f"refuses this conversation: {_short(error)}"
        except TemplateSyntaxError as error:
            why = f"is broken in line {error.lineno}: {_short(error.message)}"
        except TemplateError as error:
            why = f"fails: {_short(error)}"
        except Exception as error:  # whatever a template may do; its words could hold the prompt
            why = f"fails with a {type(error).__name__}"
        raise invalid(f"the model's chat template {why}")


class _RefusedError(Exception):
    """The template's own words about a conversation that it doesn't take."""


def _raise_exception(message: object) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:_SHOWN_CHARACTERS])


def _short(message: object) -> str:
    return " ".join(str(message).split())[:_SHOWN_CHARACTERS]


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Call `work`, and stop it by `LimitExceeded` after `seconds` if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return work()

    def stop(_number: int, _frame: object) -> NoReturn:
        raise LimitExceeded(f"takes longer than {seconds:g} s")

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, seconds, _REPEAT_SECONDS)
    try:
        try:
            return work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # a late alarm may still strike here
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
        if delay:
            left = max(delay - (time.monotonic() - started), _REPEAT_SECONDS)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
