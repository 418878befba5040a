"""What is wrong with the way to the broker, and what to do: one message and one remedy for each."""

from __future__ import annotations

import errno
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

from edged.frontends.mqtt.link import reasons
from edged.frontends.mqtt.link.box import ANSWER_SECONDS
from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.dial import ADDRESS_SECONDS
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.link.subscription import Subscription

# OpenSSL's X509_V_ERR_…
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = (18, 19)
_UNKNOWN_ISSUER = (2, 20, 21)
_HOST_MISMATCH = (62, 64)
_TLS_ALERT = b"\x15\x03"
_CONNACK = b"\x20"

_WAIT = "nothing: edged tries again by itself"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong, for an operator.

    Attributes:
        message: what is wrong, with figures, without secrets.
        remedy: what to do.
        since: when it began, on the monotonic clock.
    """

    message: str
    remedy: str
    since: float = field(default_factory=time.monotonic, compare=False)

    def as_fields(self) -> dict[str, Any]:
        """Return the fault for the status."""
        return {
            "message": self.message,
            "remedy": self.remedy,
            "since_seconds": round(time.monotonic() - self.since, 1),
        }


def is_about_time(ending: Ending) -> bool:
    """Say whether a clock that is wrong explains why TLS failed."""
    return isinstance(ending.error, ssl.SSLCertVerificationError) and ending.error.verify_code in (
        _NOT_YET_VALID,
        _EXPIRED,
    )


def explain(ending: Ending, broker: Broker, *, client_id: str, clock_synchronised: bool) -> Fault:
    """Return what to tell about an ending."""
    match ending.why:
        case "files":
            return _files(ending, broker)
        case "resolve":
            return _resolve(ending, broker)
        case "connect":
            return _connect(ending, broker)
        case "handshake":
            return _handshake(ending, broker, clock_synchronised)
        case "refused" | "disconnected":
            return _by_reason(ending, broker, client_id)
        case "silent":
            return Fault(
                f"{broker.url} took the connection and did not answer within {ANSWER_SECONDS:g} s",
                "look whether an MQTT broker listens on that port, and whether it hangs",
            )
        case "hung_up" | "protocol" | "lost":
            return _broken(ending, broker)
        case "keepalive":
            return Fault(
                f"{broker.url} was silent for longer than mqtt.keepalive_seconds = "
                f"{broker.keepalive_seconds} allows",
                "look at the network and at the broker's load",
            )
        case "overrun":
            return Fault(
                f"{broker.url} sent messages faster than they could be taken; it will deliver the rest again",
                "find who publishes so much below this device's topics, and limit it in the broker",
            )
        case "left":
            return Fault(f"the connection with {broker.url} was closed by edged", _WAIT)
        case "internal":
            return Fault(
                f"a bug in edged ended the connection with {broker.url} ({type(ending.error).__name__})",
                "report it with the log at log_level debug; edged tries again by itself",
            )


def duplicate(client_id: str) -> Fault:
    """Return what to tell when another device has our id."""
    return Fault(
        f"another device uses the id {client_id}: the broker lets only one of them stay",
        "give one of the two another device_id (cards that were cloned share it), or stop one; "
        "edged tries again in some minutes",
    )


def subscription(code: int) -> str:
    """Return why the broker refused a subscription, and what to do."""
    why = f"the broker refused the subscription ({reasons.name(code)})"
    if code in (reasons.NOT_AUTHORISED, reasons.FIRST_FAILURE):
        return f"{why}: allow this device's login to read the topic in the broker's access list"
    if code in (reasons.SHARED_UNAVAILABLE, reasons.WILDCARDS_UNAVAILABLE):
        return f"{why}: the broker can't do it; use one that can"
    return f"{why}: see the broker's log"


def known(subscription: Subscription, connection: Connection) -> str | None:
    """Return why asking the broker for a subscription is of no use; None where it is."""
    if subscription.shared:
        return None if connection.shared_available else NO_SHARED
    wild = "+" in subscription.filter or "#" in subscription.filter
    return NO_WILDCARDS if wild and not connection.wildcards_available else None


NO_SHARED = "the broker has no shared subscriptions: for a pool, use a broker with MQTT 5 that has them"
NO_WILDCARDS = "the broker takes no wildcards in subscriptions: use a broker that does"
CONNECTION_GONE = "the connection ended before the broker answered; it is asked again on the next one"
NO_ANSWER = "the broker did not answer the subscription: see its log"


def _files(ending: Ending, broker: Broker) -> Fault:
    path, error = ending.path, ending.error
    key = {broker.ca_file: "ca_file", broker.cert_file: "cert_file", broker.key_file: "key_file"}.get(path)
    name = f"mqtt.{key} = {path}"
    if isinstance(error, FileNotFoundError):
        return Fault(f"{name} does not exist", "put the file there or mend the setting")
    if isinstance(error, PermissionError):
        return Fault(f"{name} may not be read", "let the user that edged runs as read the file")
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return Fault(
            f"mqtt.key_file = {broker.key_file} is not the key of mqtt.cert_file = {path}",
            "give the key that the certificate was made with",
        )
    if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
        return Fault(
            f"mqtt.key_file = {broker.key_file} wants a passphrase",
            "store the key without one: openssl pkey -in KEY -out NEW_KEY",
        )
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return Fault(f"{name} can't be read ({error.strerror})", "mend the file or the setting")
    if path == broker.cert_file:
        name = f"{name} or mqtt.key_file = {broker.key_file}"
    return Fault(f"{name} holds nothing that TLS can use", "give a file in PEM format")


def _resolve(ending: Ending, broker: Broker) -> Fault:
    host = broker.host
    if isinstance(ending.error, socket.gaierror) and ending.error.errno == socket.EAI_AGAIN:
        return Fault(
            f"the name {host} can't be looked up now: no name server answers",
            "check the network and the name server; edged tries again by itself",
        )
    if host.lower().rstrip(".").endswith(".local"):
        return Fault(
            f"the name {host} has no address in the local network (mDNS)",
            "install libnss-mdns and avahi-daemon here, and check that the broker's host announces itself; "
            "or give its address in mqtt.url",
        )
    return Fault(f"the name {host} has no address", "mend mqtt.url, or the name server's entry")


def _connect(ending: Ending, broker: Broker) -> Fault:
    error = ending.error
    if isinstance(error, ConnectionRefusedError):
        return Fault(
            f"nothing listens on port {broker.port} of {broker.host}",
            "start the broker there, have it listen for other hosts too, or mend mqtt.url",
        )
    if isinstance(error, TimeoutError):
        return Fault(
            f"{broker.host} does not answer on port {broker.port} ({ADDRESS_SECONDS:g} s)",
            "check that the host is on, and that no firewall drops the connection",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return Fault(
            f"there is no route to {broker.host}",
            "check this device's network: cable, Wi-Fi, address; edged tries again by itself",
        )
    text = error.strerror if isinstance(error, OSError) else None
    return Fault(
        f"no connection to {broker.host}, port {broker.port} ({text or type(error).__name__})",
        "check the network and mqtt.url",
    )


def _handshake(ending: Ending, broker: Broker, clock_synchronised: bool) -> Fault:
    error = ending.error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate(error, broker, clock_synchronised)
    if isinstance(error, TimeoutError):
        return Fault(
            f"{broker.url} took the connection and began no TLS",
            "the port may be one without TLS: write mqtt:// or the port of TLS (8883) in mqtt.url",
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return _alert(error, broker)
    return Fault(
        f"what listens at {broker.url} speaks no TLS",
        "write mqtt:// for a broker without TLS, or its port with TLS (8883) in mqtt.url",
    )


def _certificate(error: ssl.SSLCertVerificationError, broker: Broker, clock_synchronised: bool) -> Fault:
    code = error.verify_code
    whose = f"the certificate of {broker.url}"
    if code in (_NOT_YET_VALID, _EXPIRED):
        what = "is not valid yet" if code == _NOT_YET_VALID else "has expired"
        if not clock_synchronised:
            return Fault(
                f"{whose} {what} by this device's clock, which is not synchronised",
                "let the device reach a time server (timedatectl status); edged tries again every 5 s",
            )
        return Fault(f"{whose} {what}", "renew the broker's certificate")
    if code in _HOST_MISMATCH:
        return Fault(
            f"{whose} is not for the name {broker.host}",
            "write the name that is in the certificate in mqtt.url, or have it issued for this one",
        )
    if code in _SELF_SIGNED or code in _UNKNOWN_ISSUER:
        where = f"mqtt.ca_file = {broker.ca_file}" if broker.ca_file else "the system's list"
        return Fault(
            f"nobody in {where} vouches for {whose}",
            "give the certificate of the authority that signed it in mqtt.ca_file",
        )
    return Fault(f"{whose} is refused ({error.verify_message})", "mend the broker's certificate")


def _alert(error: ssl.SSLError, broker: Broker) -> Fault:
    reason = error.reason or ""
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason or "HANDSHAKE_FAILURE" in reason:
        if broker.cert_file is None:
            return Fault(
                f"{broker.url} wants a certificate of this device",
                "give one in mqtt.cert_file, with its key in mqtt.key_file",
            )
        return Fault(
            f"{broker.url} does not accept the certificate in mqtt.cert_file = {broker.cert_file}",
            "give one that the broker's authority has signed and that has not expired",
        )
    return Fault(
        f"{broker.url} ended TLS ({reason.lower().replace('_', ' ')})",
        "see the broker's log; it may want another version of TLS",
    )


def _broken(ending: Ending, broker: Broker) -> Fault:
    error = ending.error
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return _alert(error, broker)
    if ending.wants_tls or (not broker.tls and ending.first_bytes.startswith(_TLS_ALERT)):
        return Fault(
            f"what listens at {broker.url} speaks TLS",
            "write mqtts:// in mqtt.url, and mqtt.ca_file where the broker's authority is your own",
        )
    stranger = not ending.answered and ending.first_bytes[:1] not in (b"", _CONNACK)
    if ending.why == "protocol" or stranger:
        return Fault(
            f"what listens at {broker.url} sent what is no MQTT",
            "look what listens on that port; if it is a broker, see its log",
        )
    if not ending.answered:
        return Fault(
            f"{broker.url} closed the connection without an answer",
            "look whether an MQTT broker listens on that port, whether it wants TLS, and at its log",
        )
    text = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return Fault(f"the connection with {broker.url} was lost{text}", _WAIT)


def _by_reason(ending: Ending, broker: Broker, client_id: str) -> Fault:
    code = ending.code or 0
    if code == reasons.SESSION_TAKEN_OVER:
        return duplicate(client_id)
    if code in (reasons.BAD_LOGIN, reasons.NOT_AUTHORISED):
        login = "the login" if broker.username else "a connection without a login"
        remedy = (
            "check mqtt.username and its password against the broker's list of logins"
            if broker.username
            else "give mqtt.username and a password"
        )
        return Fault(f"{broker.url} does not accept {login} ({reasons.name(code)})", remedy)
    what, remedy = _REASONS.get(code, (f"said: {reasons.name(code)}", "see the broker's log"))
    return Fault(f"{broker.url} {what}".replace("{client_id}", client_id), remedy)


_REASONS = {
    reasons.UNSUPPORTED_VERSION: (
        "does not speak this version of MQTT",
        'set mqtt.protocol = "auto"',
    ),
    reasons.CLIENT_ID_INVALID: (
        "does not take the client identifier {client_id}",
        "choose another device_id, or allow it in the broker",
    ),
    reasons.SERVER_UNAVAILABLE: ("is not ready", _WAIT),
    reasons.SERVER_BUSY: ("is busy", _WAIT),
    reasons.BANNED: ("has banned this device", "lift the ban in the broker"),
    reasons.SERVER_SHUTTING_DOWN: ("is shutting down", _WAIT),
    reasons.BAD_AUTHENTICATION_METHOD: (
        "wants a way of authentication that edged does not speak",
        "allow a user name and password, or a certificate, in the broker",
    ),
    reasons.KEEP_ALIVE_TIMEOUT: (
        "heard nothing of this device for too long",
        "look at the network and at this device's load; edged tries again by itself",
    ),
    reasons.PACKET_TOO_LARGE: (
        "does not take a packet as large as one that edged sent",
        "raise the broker's limit, or lower limits.max_tokens",
    ),
    reasons.QUOTA_EXCEEDED: ("says that this device's quota is used up", "raise the quota in the broker"),
    reasons.ADMINISTRATIVE: ("closed the connection by order of its operator", _WAIT),
    reasons.RATE_EXCEEDED: ("takes no more connections for now", _WAIT),
}
