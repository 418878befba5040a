"""MQTT 5's reason codes, as far as edged speaks of them."""

from __future__ import annotations

NO_SUBSCRIBERS = 0x10
FIRST_FAILURE = 0x80
UNSUPPORTED_VERSION = 0x84
CLIENT_ID_INVALID = 0x85
BAD_LOGIN = 0x86
NOT_AUTHORISED = 0x87
SERVER_UNAVAILABLE = 0x88
SERVER_BUSY = 0x89
BANNED = 0x8A
SERVER_SHUTTING_DOWN = 0x8B
BAD_AUTHENTICATION_METHOD = 0x8C
KEEP_ALIVE_TIMEOUT = 0x8D
SESSION_TAKEN_OVER = 0x8E
FILTER_INVALID = 0x8F
PACKET_TOO_LARGE = 0x95
QUOTA_EXCEEDED = 0x97
ADMINISTRATIVE = 0x98
RETAIN_UNAVAILABLE = 0x9A
QOS_UNAVAILABLE = 0x9B
SHARED_UNAVAILABLE = 0x9E
RATE_EXCEEDED = 0x9F
WILDCARDS_UNAVAILABLE = 0xA2

_NAMES = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    UNSUPPORTED_VERSION: "unsupported protocol version",
    CLIENT_ID_INVALID: "client identifier not valid",
    BAD_LOGIN: "bad user name or password",
    NOT_AUTHORISED: "not authorised",
    SERVER_UNAVAILABLE: "server unavailable",
    SERVER_BUSY: "server busy",
    BANNED: "banned",
    SERVER_SHUTTING_DOWN: "server shutting down",
    BAD_AUTHENTICATION_METHOD: "bad authentication method",
    KEEP_ALIVE_TIMEOUT: "keep alive timeout",
    SESSION_TAKEN_OVER: "session taken over",
    FILTER_INVALID: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    PACKET_TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    QUOTA_EXCEEDED: "quota exceeded",
    ADMINISTRATIVE: "administrative action",
    0x99: "payload format invalid",
    RETAIN_UNAVAILABLE: "retain not supported",
    QOS_UNAVAILABLE: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    SHARED_UNAVAILABLE: "shared subscriptions not supported",
    RATE_EXCEEDED: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    WILDCARDS_UNAVAILABLE: "wildcard subscriptions not supported",
}


def name(code: int) -> str:
    """Return a code's name, with the code where it has none."""
    return _NAMES.get(code, f"reason code 0x{code:02x}")
