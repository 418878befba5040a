"""Jinja for chat templates that nobody vouches for: they come with the model file.

Jinja's own sandbox keeps a template from the interpreter's internals, but not from making a string of a
gigabyte. Here whatever makes a value at once (an operator, a filter, a method) is paid for before it runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from html import escape
from typing import Any, NoReturn, TypeVar

from jinja2 import Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import do_indent, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

T = TypeVar("T")

# Everything that one render makes on its way, as a multiple of the longest single value.
_TOTAL_FACTOR = 32
_MAX_INTEGER_BITS = 4096
_MAX_INDENT = 64

# fmt: off
_METHODS: dict[type, set[str]] = {
    str: {
        "capitalize", "count", "endswith", "find", "format", "format_map", "index", "isalnum", "isalpha",
        "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join",
        "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase",
        "title", "upper",
    },
    dict: {"get", "items", "keys", "values"},
    list: {"count", "index"},
    tuple: {"count", "index"},
    int: set(),
    float: set(),
}
# Jinja's own filters that neither print nor multiply what they are given.
_KEPT_FILTERS = {
    "abs", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last",
    "length", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort",
    "unique",
}
# fmt: on
_WIDE_PERCENT = re.compile(r"%(\([^)]*\))?[-+ #0]*(\*|\d{4}|\d*\.(\*|\d{4}))")
_WIDE_BRACES = re.compile(r"\{[^{}]*[:!][^{}]*(\{|\d{4})")


class LimitExceeded(BaseException):
    """A template took more than it may. No `Exception`, as jinja swallows those while it compiles."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it does nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja's own form)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _CodeGenerator(CodeGenerator):
    """Sends `~` and slices, which jinja compiles to bare Python, through the sandbox."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.made(")
        super().visit_Getitem(node, frame)
        self.write(")")


class Sandbox(ImmutableSandboxedEnvironment):
    """The dialect of Jinja that chat templates are written in, with a bound on what they make.

    Call `allow` before each use. Compiling and rendering raise `LimitExceeded`, and any
    exception at all for what else is wrong with a template.
    """

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    code_generator_class = _CodeGenerator

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=self.text,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        kept = {name: self.filters[name] for name in _KEPT_FILTERS}
        self.filters = kept | {
            "capitalize": self._on_text(str.capitalize),
            "e": self._on_text(escape),
            "escape": self._on_text(escape),
            "format": lambda pattern, *args, **named: self._percent(pattern, named or args),
            "indent": self._indent,
            "join": self._join,
            "list": lambda values: self.made(list(values)),
            "lower": self._on_text(str.lower),
            "replace": lambda text, *args: self._replace(self.text(text), *args),
            "safe": self.text,
            "string": self.text,
            "title": self._on_text(str.title),
            "tojson": self._tojson,
            "trim": self._on_text(str.strip),
            "upper": self._on_text(str.upper),
        }
        self.globals = {name: self.globals[name] for name in ("range", "namespace")}
        self.globals["dict"] = lambda *args, **named: self.made(dict(*args, **named))
        self.allow(0)

    def allow(self, characters: int) -> None:
        """Open a new account: no value longer than so many characters (or items)."""
        self._longest = characters
        self._left = characters * _TOTAL_FACTOR

    def text(self, value: Any) -> str:
        """Return what the template prints for a value."""
        if isinstance(value, str):
            return value
        self._pay(self._weight(value))
        return str(value)

    def join(self, parts: Iterable[Any], separator: str = "") -> str:
        """Join parts as text, as soon as they are made and no further than is allowed."""
        texts, length = [], 0
        for part in parts:
            texts.append(self.text(part))
            length += len(texts[-1]) + len(separator)
            if length > self._longest:
                self._refuse()
        self._pay(length)
        return separator.join(texts)

    # Compiled templates call this for whatever they put together: their output, macros, blocks that are set.
    concat = join

    def made(self, value: T) -> T:
        """Pay for a value that can't be longer than what it was made from, and return it."""
        self._pay(len(value) if isinstance(value, (str, list, tuple, dict)) else 1)
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute one of the operators that can make a value of any size, if it is small enough."""
        if operator == "%" and isinstance(left, str):
            return self._percent(left, right)
        if operator == "+" and isinstance(left, (str, list, tuple)):
            self._pay(len(left) + len(right))
        elif operator == "*":
            for some, times in ((left, right), (right, left)):
                if isinstance(some, (str, list, tuple)):
                    self._pay(len(some) * max(times, 1))
        if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            if (bits * right if operator == "**" else bits + right.bit_length()) > _MAX_INTEGER_BITS:
                self._refuse()
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow the listed methods of built-in types, and of jinja's own objects what its sandbox allows."""
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse at once; jinja's own value would print as nothing."""
        raise SecurityError(f"{attribute!r} of a {type(obj).__name__} is not allowed")

    def wrap_str_format(self, value: Any) -> Callable[..., Any] | None:
        """Return a string's method as one that pays; jinja asks for `format` here, but about every method."""
        owner, name = getattr(value, "__self__", None), getattr(value, "__name__", "")
        if not isinstance(owner, str) or name not in _METHODS[str]:
            return None
        if name == "join":
            return lambda parts: self.join(parts, owner)
        if name == "replace":
            return lambda *args: self._replace(owner, *args)
        method = super().wrap_str_format(value)
        if method is None:
            return lambda *args: self.made(value(*args))

        def format_(*args: Any, **named: Any) -> str:
            self._pay_format(owner, _WIDE_BRACES, "{", (args, named))
            return str(method(*args, **named))

        return format_

    def _refuse(self) -> NoReturn:
        raise LimitExceeded(f"makes a text of more than {self._longest} characters, or many of them")

    def _pay(self, size: int) -> None:
        if size > min(self._longest, self._left):
            self._refuse()
        self._left -= size

    def _weight(self, value: Any) -> int:
        """Return about how long a value is in print; what holds one thing many times is counted in full."""
        weight, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            weight += 8
            if isinstance(item, str):
                weight += len(item)
            elif isinstance(item, (list, tuple)):
                waiting.extend(item)
            elif isinstance(item, dict):
                waiting.extend(item)
                waiting.extend(item.values())
            elif item is not None and not isinstance(item, (int, float, Undefined)):
                raise SecurityError(f"a {type(item).__name__} can't be printed")
            if weight > self._longest:
                self._refuse()
        return weight

    def _on_text(self, function: Callable[..., str]) -> Callable[..., str]:
        return lambda value, *args: self.made(function(self.text(value), *args))

    def _replace(self, text: str, old: str, new: str, *count: int) -> str:
        self._pay(len(text) + text.count(old) * len(new))
        return text.replace(old, new, *count)

    def _percent(self, pattern: str, values: Any) -> str:
        self._pay_format(pattern, _WIDE_PERCENT, "%", values)
        return str(pattern % values)

    def _pay_format(self, pattern: str, wide: re.Pattern[str], mark: str, values: Any) -> None:
        if wide.search(pattern):
            raise SecurityError("a format of more than 999 places is not allowed")
        self._pay(len(pattern) + pattern.count(mark) * (1000 + self._weight(values)))

    def _indent(self, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text, width = self.text(value), _narrow(width)
        self._pay(len(text) + len(width) * (1 + len(text.splitlines())))
        return do_indent(text, width, first, blank)

    def _join(self, values: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        return self.join(values, self.text(separator))

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii,
            indent=None if indent is None else _narrow(indent),
            separators=separators,
            sort_keys=sort_keys,
        )
        return self.join(encoder.iterencode(value))


def _narrow(width: int | str) -> str:
    """Return an indentation, given as spaces or as text, as text."""
    if (len(width) if isinstance(width, str) else width) > _MAX_INDENT:
        raise SecurityError(f"an indentation of more than {_MAX_INDENT} places is not allowed")
    return width if isinstance(width, str) else " " * width
