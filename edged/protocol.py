"""The vocabulary that frontends and core share: requests, clients and frames.

A `Request` is what a requester wants, already validated; frames are what it gets
back. Both are the same on every way in; only their envelope differs.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from edged.errors import EdgedError, ErrorCode, invalid

PROTOCOL_VERSION = 1

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TOKEN = re.compile(r"[0-9]{1,10}")

INT32_MAX = 2**31 - 1
SEED_MAX = 2**32 - 1
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_LOGIT_BIASES = 1024
MAX_MESSAGES = 4096
MAX_TOP_LOGPROBS = 20
MAX_DIGITS = 400  # as many as the largest float has, and more
LEAST_FACTOR = 0.01
"""Logits are divided by temperature and penalty: by much less they overflow."""

Role = Literal["system", "user", "assistant"]
Raw = bytes  # a field below has the type's own name
Priority = Literal["low", "normal", "high"]
FinishReason = Literal["stop", "length", "cancelled"]

# What a later version will serve. Refused by name until then: never ignored.
_NOT_SERVED = {
    "task": "no task profiles can be configured in this version",
    "response_format": "answers can't be constrained in this version",
    "reply_to": "it belongs to MQTT, which this way in is not",
}


def _whole_text(text: str) -> str:
    """Refuse text that is no UTF-8: JSON can smuggle half a surrogate pair in."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is half of a surrogate pair, so the text is no UTF-8"
        ) from None
    return text


def _real_number(value: object) -> object:
    """Refuse true and false where a number belongs (Python counts them as 1 and 0)."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _token_numbers(value: object) -> object:
    """Read the keys of logit_bias: JSON's are texts."""
    if not isinstance(value, dict):
        return value
    for key in map(str, value):
        if not _TOKEN.fullmatch(key):
            raise ValueError(f"{json.dumps(key[:32])} is no token id")
    return {int(key): bias for key, bias in value.items()}


def _no_tiny_temperature(value: float) -> float:
    if 0 < value < LEAST_FACTOR:
        raise ValueError(f"must be 0 (greedy) or at least {LEAST_FACTOR}")
    return value


def valid_request_id(text: str) -> bool:
    """Say whether `text` may be the id of a request."""
    return _REQUEST_ID.fullmatch(text) is not None


def valid_name(text: str) -> bool:
    """Say whether `text` may name a client, a task, a pool or a session."""
    return _NAME.fullmatch(text) is not None


def _request_id(text: str) -> str:
    if not valid_request_id(text):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 _ . : -")
    return text


def _name(text: str) -> str:
    if not valid_name(text):
        raise ValueError("must be 1 to 64 characters of A-Z a-z 0-9 _ . -")
    return text


Text = Annotated[str, AfterValidator(_whole_text)]
RequestId = Annotated[str, AfterValidator(_request_id)]
Name = Annotated[str, AfterValidator(_name)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS), AfterValidator(_whole_text)]
Number = Annotated[float, BeforeValidator(_real_number), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_real_number)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Message(_Model):
    """One turn of a conversation."""

    role: Role
    content: Text
    name: Text | None = None


class Request(_Model):
    """What a requester wants of the model, validated; `None` means the default.

    Exactly one of `prompt` and `messages` is given. `raw` prompts are continued as they
    stand; others are put through the model's chat template.
    """

    id: RequestId | None = None
    prompt: Text | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES)] | None = Field(
        default=None, strict=False
    )
    raw: bool = False
    system: Text | None = None
    session: Name | None = None
    max_tokens: Annotated[Whole, Field(ge=1, le=INT32_MAX)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=100), AfterValidator(_no_tiny_temperature)] = 0.8
    top_k: Annotated[Whole, Field(ge=0, le=INT32_MAX)] = 40
    top_p: Annotated[Number, Field(ge=0, le=1)] = 0.95
    min_p: Annotated[Number, Field(ge=0, le=1)] = 0.05
    seed: Annotated[Whole, Field(ge=0, le=SEED_MAX)] | None = None
    stop: Annotated[tuple[StopText, ...], Field(max_length=MAX_STOPS)] = Field(default=(), strict=False)
    repeat_penalty: Annotated[Number, Field(ge=LEAST_FACTOR, le=100)] = 1.0
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[
        dict[Annotated[int, Field(ge=0, le=INT32_MAX)], Annotated[Number, Field(ge=-100, le=100)]],
        BeforeValidator(_token_numbers),
        Field(max_length=MAX_LOGIT_BIASES),
    ] = Field(default_factory=dict, strict=False)
    logprobs: bool = False
    top_logprobs: Annotated[Whole, Field(ge=0, le=MAX_TOP_LOGPROBS)] = 0
    stream: bool = True
    ttl_s: Annotated[Number, Field(gt=0, le=INT32_MAX)] | None = None
    priority: Priority = "normal"

    @model_validator(mode="after")
    def _one_text(self) -> Request:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of prompt and messages")
        if self.raw and (self.prompt is None or self.system is not None or self.session is not None):
            raise ValueError("a raw prompt takes neither messages nor system nor session")
        if self.system is not None and any(m.role == "system" for m in self.messages or ()):
            raise ValueError("system is given twice: as a field and among the messages")
        if self.session is not None and self.messages is not None:
            roles = [m.role for m in self.messages]
            if roles not in (["user"], ["system", "user"]):
                raise ValueError("with a session, messages is one user message (the device keeps the rest)")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Request:
        """Validate the fields of a request; null stands for a field that was left out.

        Raises:
            EdgedError: `invalid`, naming the field, its fault and what is allowed.
        """
        for name, why in _NOT_SERVED.items():
            if fields.get(name) is not None:
                raise invalid(f"{name} is not served: {why}", param=name)
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            _raise_invalid(error)

    def turns(self) -> tuple[Message, ...]:
        """Return the conversation that the chat template renders, system text first."""
        messages = self.messages or (Message(role="user", content=self.prompt or ""),)
        if self.system is not None:
            messages = (Message(role="system", content=self.system), *messages)
        return messages

    def text_bytes(self) -> int:
        """Return how many bytes of UTF-8 the request's texts have."""
        texts = [self.prompt or "", self.system or ""]
        for message in self.messages or ():
            texts += [message.content, message.name or ""]
        return sum(len(text.encode()) for text in texts)

    def body_hash(self, salt: bytes) -> bytes:
        """Return a salted hash of everything but the id, the way of delivery and the time that is left."""
        # Without the defaults, a later version's new fields leave the hash of a request as it was.
        body = self.model_dump_json(exclude={"id", "stream", "ttl_s"}, exclude_defaults=True)
        return hashlib.blake2b(body.encode(), key=salt, digest_size=16).digest()


def _raise_invalid(error: ValidationError) -> NoReturn:
    """Turn pydantic's list of faults into one sentence about the first of them."""
    fault = error.errors(include_url=False, include_input=False)[0]
    # Union members and validator names stand in the path too; a requester knows only fields and indices.
    path = [str(part) for part in fault["loc"] if isinstance(part, int) or part in _FIELD_NAMES]
    param = ".".join(path) or None
    what = _FAULTS.get(fault["type"], fault["msg"].removeprefix("Value error, "))
    if fault["type"] == "extra_forbidden":
        name = str(fault["loc"][-1])[:64]
        raise invalid(f"unknown field {json.dumps(name)}", param=name)
    raise invalid(f"{param}: {what}" if param else what, param=param)


# Where pydantic's words are Python's rather than JSON's.
_FAULTS = {
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "string_type": "must be a text",
    "string_unicode": "must be text that is UTF-8",
    "too_short": "must not be empty",
}
_FIELD_NAMES = {*Request.model_fields, *Message.model_fields}


def parse_json(body: bytes) -> Any:
    """Parse JSON as the protocol allows it: UTF-8, finite numbers, bounded depth.

    Raises:
        EdgedError: `invalid`, saying where and why.
    """
    try:
        return json.loads(body.decode(), parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
    except UnicodeDecodeError as error:
        raise invalid(f"the body is no UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise invalid("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # as of a string that has no end
        raise invalid(f"the body is no JSON: {what} at character {error.pos}") from None
    except ValueError as error:
        raise invalid(f"the body is no valid JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:32]} is out of range")
    return value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits is out of range")
    return int(text)


@dataclass(frozen=True, slots=True)
class Client:
    """Whom limits and fairness count.

    Attributes:
        name: the peer's uid, the token's name or the client level of the topic.
        way: the frontend that it came by.
        user: divides fairness within the client; never widens a limit.
    """

    name: str
    way: Literal["socket", "tcp", "mqtt"]
    user: str = ""

    @property
    def identity(self) -> tuple[str, str]:
        """Return what tells clients apart: a name is one way's own."""
        return self.way, self.name


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's share of the distribution that the model gave, before any sampler.

    Attributes:
        text: the token's text; not whole UTF-8 is shown with U+FFFD.
        bytes: the token's bytes.
        logprob: natural logarithm of its probability.
        top: the likeliest tokens at this place, as (text, bytes, logprob).
    """

    text: str
    bytes: Raw
    logprob: float
    top: tuple[tuple[str, Raw, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the request cost; `cached_tokens` of the prompt needed no computing."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the request took; rates are None where nothing was measured."""

    queued_ms: float
    first_token_ms: float | None = None
    prompt_tokens_per_second: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    id: str
    attempt: int
    seq: int


@dataclass(frozen=True, slots=True)
class Accepted(_Frame):
    """The request was admitted; 0 before it in the queue means that it runs."""

    queue_position: int
    type: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True)
class Chunk(_Frame):
    """A piece of the answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    type: Literal["chunk"] = "chunk"


@dataclass(frozen=True, slots=True)
class Progress(_Frame):
    """How far a long prompt has been read."""

    prompt_tokens_done: int
    prompt_tokens: int
    type: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Done(_Frame):
    """The end of a request that was answered or cancelled; `text` is the whole answer.

    `session_turns_dropped` says how many old turns of the session did not fit the context.
    """

    finish_reason: FinishReason
    text: str
    usage: Usage
    timings: Timings
    session_turns_dropped: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    type: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Failed(_Frame):
    """The end of a request that was refused or failed (`error` on the wire)."""

    code: ErrorCode
    message: str
    retry_after_s: float | None = None
    type: Literal["error"] = "error"
    param: str | None = None

    def error(self) -> EdgedError:
        """Return the frame as the exception that it came from."""
        return EdgedError(self.code, self.message, retry_after_s=self.retry_after_s, param=self.param)


Frame = Accepted | Chunk | Progress | Done | Failed
Terminal = Done | Failed
_TERMINAL_FIELDS = {*Done.__dataclass_fields__, *Failed.__dataclass_fields__}


def terminal_of(fields: Mapping[str, Any]) -> Terminal:
    """Return the terminal frame that these fields, made by `frame_fields`, stand for."""
    own = {name: value for name, value in fields.items() if name in _TERMINAL_FIELDS}
    if own.pop("type") == "error":
        return Failed(**{**own, "code": ErrorCode(own["code"])})
    own["usage"], own["timings"] = Usage(**own["usage"]), Timings(**own["timings"])
    own["logprobs"] = tuple(
        TokenLogprob(
            entry["text"],
            bytes(entry["bytes"]),
            entry["logprob"],
            tuple((top["text"], bytes(top["bytes"]), top["logprob"]) for top in entry["top"]),
        )
        for entry in own.get("logprobs", ())
    )
    return Done(**own)


def frame_fields(frame: Frame) -> dict[str, Any]:
    """Return a frame as the fields of its JSON object; what is empty or unknown is left out."""
    fields: dict[str, Any] = {"v": PROTOCOL_VERSION, **asdict(frame)}
    for name, nothing in (
        ("session_turns_dropped", 0),
        ("logprobs", ()),
        ("retry_after_s", None),
        ("param", None),
    ):
        if fields.get(name, ...) == nothing:
            del fields[name]
    for entry in fields.get("logprobs", ()):
        entry["bytes"] = list(entry["bytes"])
        entry["top"] = [
            {"text": text, "bytes": list(raw), "logprob": logprob} for text, raw, logprob in entry["top"]
        ]
    return fields
