"""Parameters that chat and text completions have in common: OpenAI's names to the protocol's fields."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edged.errors import EdgedError, invalid
from edged.protocol import INT32_MAX

MAX_CHOICES = 4
MAX_USER_CHARACTERS = 256

# Fields that mean the same in the protocol.
_SAME = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "priority",
        "ttl_s",
        "response_format",
        "task",
        "logit_bias",
    }
)
COMMON = _SAME | {"model", "stream", "stream_options", "stop", "logprobs", "n", "user"}

# OpenAI's parameters that edged does not serve, with the values that ask for nothing.
NOT_SERVED: Mapping[str, tuple[Any, ...]] = {
    "metadata": (),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (),
}
_NOTHING: tuple[Any, ...] = (None, False, [], {})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request body in the protocol's terms.

    Attributes:
        fields: the fields of the request, not yet validated.
        model: the model's name, None if any will do.
        n: how many choices are wanted.
        user: OpenAI's `user`, empty if there is none.
        include_usage: whether a stream ends with the usage.
    """

    fields: dict[str, Any]
    model: str | None
    n: int
    user: str
    include_usage: bool


def translate(
    body: Mapping[str, Any], *, own: frozenset[str], not_served: Mapping[str, tuple[Any, ...]]
) -> Asked:
    """Translate what both kinds of completion share.

    Args:
        body: the request's JSON object.
        own: fields that the caller translates itself.
        not_served: what is refused by name beside `NOT_SERVED`.

    Raises:
        EdgedError: `invalid`, naming the field.
    """
    refuse_others(body, COMMON | own, {**NOT_SERVED, **not_served})
    fields = {name: body[name] for name in _SAME if name in body}
    if fields.get("response_format") == {"type": "text"}:
        del fields["response_format"]
    stream = optional(body, "stream", bool, "true or false") or False
    fields["stream"] = stream
    stop = body.get("stop")
    fields["stop"] = [stop] if isinstance(stop, str) else stop
    return Asked(
        fields=fields,
        model=optional(body, "model", str, "a string"),
        n=_choices(body),
        user=user_of(body),
        include_usage=_include_usage(body, stream=stream),
    )


def not_served(name: str) -> EdgedError:
    """Return the refusal of a parameter, by its name."""
    return invalid(f"{name} is not served: leave it out", param=name)


def refuse_others(
    body: Mapping[str, Any], served: frozenset[str], refused: Mapping[str, tuple[Any, ...]]
) -> None:
    """Refuse fields that are not served, by name.

    Args:
        body: the request's JSON object.
        served: names of the fields that are.
        refused: of those that OpenAI has, the values that ask for nothing.

    Raises:
        EdgedError: `invalid`, naming the field.
    """
    for name, value in body.items():
        if name in refused:
            if not _is_one_of(value, _NOTHING + refused[name]):
                raise not_served(name)
        elif name not in served:
            raise unknown(name, served)


def unknown(name: str, known: frozenset[str], *, where: str = "") -> EdgedError:
    """Return the refusal of an unknown field; a near miss is suggested."""
    near = difflib.get_close_matches(name[:64], known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return invalid(f"unknown field {json.dumps(name[:64])}{hint}", param=f"{where}{name[:64]}")


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Say whether `value` is one of `allowed`: 0 and 1 are not false and true here."""
    return any(type(value) is type(one) and value == one for one in allowed)


def optional(body: Mapping[str, Any], name: str, kind: type, described: str) -> Any:
    """Return a field of this type, None where it is left out.

    Raises:
        EdgedError: `invalid`, naming the field: it is of another type.
    """
    value = body.get(name)
    if value is not None and type(value) is not kind:
        raise invalid(f"{name}: must be {described}", param=name)
    return value


def _choices(body: Mapping[str, Any]) -> int:
    n: int | None = optional(body, "n", int, f"a whole number from 1 to {MAX_CHOICES}")
    if n is None:
        return 1
    if not 1 <= n <= MAX_CHOICES:
        raise invalid(f"n: {n if abs(n) <= INT32_MAX else 'this'} is not from 1 to {MAX_CHOICES}", param="n")
    if n > 1 and body.get("session") is not None:
        raise invalid(f"n: {n} answers can't all be the next turn of one session: ask for one", param="n")
    return n


def user_of(body: Mapping[str, Any]) -> str:
    """Return OpenAI's `user`, empty if there is none.

    Raises:
        EdgedError: `invalid`: it is no name.
    """
    user: str = optional(body, "user", str, "a string") or ""
    if len(user) > MAX_USER_CHARACTERS or not user.isprintable():
        raise invalid(f"user: must be at most {MAX_USER_CHARACTERS} printable characters", param="user")
    return user


def _include_usage(body: Mapping[str, Any], *, stream: bool) -> bool:
    options: dict[str, Any] | None = optional(body, "stream_options", dict, "an object")
    if options is None:
        return False
    if not stream:
        raise invalid("stream_options: needs stream: true", param="stream_options")
    known = frozenset({"include_usage"})
    refuse_others(options, known, {"include_obfuscation": ()})
    return optional(options, "include_usage", bool, "true or false") or False
