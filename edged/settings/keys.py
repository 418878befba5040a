"""The keys of all tables as one flat list: what each takes, its default, its name in the environment."""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edged.settings.settings import Settings
from edged.settings.types import Allowed

ENVIRONMENT_PREFIX = "EDGED_"
CREDENTIALS = {
    "http_token": "http.token_file",
    "mqtt_password": "mqtt.password_file",
    "mqtt_key": "mqtt.key_file",
}
"""Names of credentials, each with the key that names a file for the same purpose."""
SECRETS = {"http.token": "http.token_file", "mqtt.password": "mqtt.password_file"}
"""Keys that are never shown, each with the key that names the file whose first line is its value."""


def _tables(table: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield prefix, table
    for name, field in table.model_fields.items():
        if _is_table(field):
            yield from _tables(field.annotation, f"{prefix}.{name}".lstrip("."))  # type: ignore[arg-type]


def _is_table(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


TABLES: dict[str, type[BaseModel]] = dict(_tables(Settings))
KEYS: dict[str, FieldInfo] = {
    f"{prefix}.{name}".lstrip("."): field
    for prefix, table in TABLES.items()
    for name, field in table.model_fields.items()
    if not _is_table(field)
}


def variable(key: str) -> str:
    """Return the name of a key in the environment."""
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def value_of(settings: Settings, key: str) -> Any:
    """Return a key's value; a secret as SecretStr."""
    value: Any = settings
    for name in key.split("."):
        value = getattr(value, name)
    return value


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def default_text(key: str) -> str:
    """Return a key's default in TOML, or in words where it depends on the machine or is none."""
    field = KEYS[key]
    extra = field.json_schema_extra
    if isinstance(extra, dict):
        return str(extra["default"])
    return "none" if field.default is None else toml(field.default)


def allowed(key: str) -> str:
    """Return in words what a key takes."""
    field = KEYS[key]
    return _allowed(field.annotation, field.metadata)


def takes_text(key: str) -> bool:
    """Say whether a key takes nothing but text, so that the environment's needs no reading as TOML."""
    return not any(kind in (bool, int, float, tuple) for kind in _leaves(KEYS[key].annotation))


def near_misses(key: str, known: Collection[str]) -> list[str]:
    """Return those of the known names, mostly one, that an unknown key was probably meant to be."""
    prefix, _, name = key.rpartition(".")
    if same := [one for one in KEYS if one.rpartition(".")[2] == name]:
        return same
    siblings = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == prefix}
    if close := difflib.get_close_matches(name, siblings, 1):
        return [siblings[close[0]]]
    return difflib.get_close_matches(key, known, 1)


def _leaves(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated or origin in (Union, types.UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            yield from _leaves(part)
    else:
        yield origin or annotation


def _allowed(annotation: Any, metadata: Any = ()) -> str:
    """Put a type into words, by its marks first and by its shape else."""
    marks = [mark for one in metadata for mark in (one.metadata if isinstance(one, FieldInfo) else [one])]
    for mark in reversed(marks):
        if isinstance(mark, Allowed):
            return mark.text
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(parts[0], [*annotation.__metadata__, *marks])
    if origin in (Union, types.UnionType):
        return _either(_allowed(part) for part in parts if part is not type(None))
    if origin is Literal:
        return _either(toml(value) for value in parts)
    if origin is tuple:
        return f"a list of {_allowed(parts[0])}"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        low, high = (
            next(toml(getattr(mark, end)) for mark in marks if hasattr(mark, end)) for end in ("ge", "le")
        )
        return f"a {'whole ' if annotation is int else ''}number from {low} to {high}"
    return "text that is not empty"


def _either(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
