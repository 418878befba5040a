"""What is wrong with the way to the broker, and what to do: one message and one remedy for each."""

from __future__ import annotations

import errno
import socket
import ssl

from edged.frontends.mqtt.link import reasons, tls_faults
from edged.frontends.mqtt.link.box import ANSWER_SECONDS
from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.dial import ADDRESS_SECONDS
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.link.fault import Fault
from edged.frontends.mqtt.link.subscription import Subscription

_TLS_ALERT = b"\x15\x03"
_CONNACK = b"\x20"

_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

_WAIT = "nothing: edged tries again by itself"


def explain(ending: Ending, broker: Broker, *, client_id: str, clock_synchronised: bool) -> Fault:
    """Return what to tell about an ending."""
    match ending.why:
        case "files":
            return tls_faults.files(ending, broker)
        case "resolve":
            return _resolve(ending, broker)
        case "connect":
            return _connect(ending, broker)
        case "handshake":
            return tls_faults.handshake(ending, broker, clock_synchronised)
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
        case "stalled":
            return Fault(f"the thread that served {broker.url} stood still; another takes its place", _WAIT)
        case "internal":
            return _internal(ending, broker)


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
    if code == reasons.FIRST_FAILURE:  # all that MQTT 3.1.1 can say
        return (
            f"{why}: its access list forbids the topic to this device's login, or a cluster has no leader; "
            "see the broker's log. edged asks again"
        )
    if code == reasons.NOT_AUTHORISED:
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
NO_ANSWER = "the broker did not answer the subscription: see its log; edged asks again"


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


def _broken(ending: Ending, broker: Broker) -> Fault:
    error = ending.error
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return tls_faults.alert(error, broker)
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


def _internal(ending: Ending, broker: Broker) -> Fault:
    error = ending.error
    if isinstance(error, OSError) and error.errno in _USED_UP:
        return Fault(
            f"the system has no means left for a connection with {broker.url} ({error.strerror})",
            "see what uses up memory or open files on this device (LimitNOFILE of the unit bounds files); "
            "edged tries again by itself",
        )
    return Fault(
        f"a bug in edged ended the connection with {broker.url} ({type(error).__name__})",
        "report it with the log at log_level debug; edged tries again by itself",
    )


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
