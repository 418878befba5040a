"""The protocol's JSON on MQTT: payloads that arrived, and frames that leave."""

from __future__ import annotations

import json
from typing import Any

from edged.errors import EdgedError, ErrorCode, invalid
from edged.frontends.mqtt.message import Message
from edged.protocol import INT32_MAX, PROTOCOL_VERSION, Frame, frame_fields, parse_json

_OTHER_BYTES = 65_536  # of a payload beside its texts
_JSON = "application/json"


def read_ask(message: Message, max_prompt_bytes: int) -> dict[str, Any]:
    """Return the fields of a request.

    A content type says what the payload is; without one, what begins with `{` is JSON and all else is the
    prompt itself.

    Raises:
        EdgedError: `too_large`, with both figures, or `invalid`.
    """
    # JSON may write a character of two bytes as \\uXXXX: three times the length.
    limit = 3 * max_prompt_bytes + _OTHER_BYTES
    if len(message.payload) > limit:
        raise EdgedError(
            ErrorCode.TOO_LARGE,
            f"the payload has {len(message.payload)} bytes, {limit} are allowed: shorten it "
            "(limits.max_prompt_bytes)",
        )
    if _is_json(message):
        fields = read_object(message.payload)
    else:
        try:
            fields = {"prompt": message.payload.decode()}
        except UnicodeDecodeError as error:
            raise invalid(f"the payload is no UTF-8 (byte {error.start})") from None
        if not message.payload:
            raise invalid("the payload is empty: send a prompt, or a JSON object")
    if message.expiry_seconds is not None:
        fields["ttl_s"] = _least(fields.get("ttl_s"), min(max(1, message.expiry_seconds), INT32_MAX))
    return fields


def read_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object that a payload holds.

    Raises:
        EdgedError: `invalid`.
    """
    fields = parse_json(payload)
    if not isinstance(fields, dict):
        raise invalid("the payload is no JSON object")
    return fields


def head(device_id: str) -> dict[str, Any]:
    """Return the fields that each message about a device begins with."""
    return {"v": PROTOCOL_VERSION, "device_id": device_id}


def encode(fields: dict[str, Any]) -> str:
    """Return fields as the JSON that is published."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def encode_frame(frame: Frame, device_id: str) -> str:
    """Return a frame as the JSON that is published; of equal frames it is equal."""
    return encode({**frame_fields(frame), "device_id": device_id})


def _is_json(message: Message) -> bool:
    content_type = (message.content_type or "").partition(";")[0].strip().lower()
    if content_type:
        return content_type == _JSON or content_type.endswith("+json")
    return message.payload.lstrip(b" \t\r\n").startswith(b"{")


def _least(ttl: object, expiry: int) -> object:
    """Return the shorter of what the request says and what is left of the message's expiry."""
    if isinstance(ttl, int | float) and not isinstance(ttl, bool):
        return min(ttl, expiry)
    return expiry if ttl is None else ttl
