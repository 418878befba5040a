"""JSON values turned into the types that messages are made of, and refused where they are of others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

Reader = Callable[[Any], Any]

_MOST_INT = 1 << 63


def reader(kind: Any) -> Reader:
    """Return what turns a JSON value into a type, and raises ValueError where the value is of another.

    Args:
        kind: bool, int, float, str or Any; an enumeration or a Literal; a list, dict or tuple of such; a
            dataclass or NamedTuple of such, as the list of its fields; such or None; or an Annotated str,
            which names the encoding that its text must have.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        [other] = (argument for argument in arguments if argument is not NoneType)
        return _optional(reader(other))
    if origin is Literal:
        return _literal(arguments)
    if origin is Annotated:
        return _text(arguments[1])
    if origin is list:
        return _list(reader(arguments[0]))
    if origin is dict:
        return _dict(reader(arguments[0]), reader(arguments[1]))
    if origin is tuple:
        return _record(lambda *values: values, [reader(argument) for argument in arguments])
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        return _record(kind, [reader(hint) for hint in get_type_hints(kind, include_extras=True).values()])
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    return _PLAIN[kind]


def _same(value: Any) -> Any:
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{type(value).__name__} in place of true or false")
    return value


def _int(value: Any) -> int:
    if type(value) is not int or not -_MOST_INT <= value < _MOST_INT:
        raise ValueError(f"{type(value).__name__} in place of a whole number of 64 bits")
    return value


def _float(value: Any) -> float:
    if type(value) is not float:
        return float(_int(value))
    if math.isnan(value):
        raise ValueError("NaN in place of a number")
    return value


def _text(encoding: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str:
            raise ValueError(f"{type(value).__name__} in place of text")
        if not value.isascii():
            try:
                value.encode(encoding)
            except UnicodeEncodeError:  # its words would show the text
                raise ValueError(f"text beyond {encoding}") from None
        return value

    return read


def _literal(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{type(value).__name__} in place of one of {allowed}")
        return value

    return read


def _optional(other: Reader) -> Reader:
    return lambda value: None if value is None else other(value)


def _list(item: Reader) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise ValueError(f"{type(value).__name__} in place of a list")
        return [item(each) for each in value]

    return read


def _dict(key: Reader, item: Reader) -> Reader:
    def read(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise ValueError(f"{type(value).__name__} in place of an object")
        return {key(name): item(each) for name, each in value.items()}

    return read


def _record(make: Callable[..., Any], readers: list[Reader]) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise ValueError(f"{type(value).__name__} in place of a list of {len(readers)} fields")
        return make(*[field(each) for field, each in zip(readers, value, strict=True)])

    return read


_PLAIN: dict[Any, Reader] = {
    Any: _same,
    bool: _bool,
    int: _int,
    float: _float,
    str: _text("utf-8"),
}
