"""From a broker's name to a connected socket, with TLS where it is wanted."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.ending import EndedError, Ending, Why

DIAL_SECONDS = 15.0  # for all addresses of the name together
ADDRESS_SECONDS = 8.0  # for one of them
HANDSHAKE_SECONDS = 10.0


def dial(broker: Broker) -> socket.socket:
    """Return a connected socket. Blocks; looking up a name takes what the system's resolver takes.

    Raises:
        EndedError: there is no way to the broker as things are.
    """
    context = _tls_context(broker) if broker.tls else None
    plain = _connect(broker)
    # A chunk must not wait for the acknowledgement of the one before it.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _handshake(plain, context, broker.host) if context else plain


def begins_tls(broker: Broker) -> bool:
    """Say whether what listens there answers as TLS does: brokers with TLS hang up on others in silence."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _handshake(_connect(broker), context, broker.host).close()
    except EndedError:
        return False
    return True


def _tls_context(broker: Broker) -> ssl.SSLContext:
    path = broker.ca_file
    try:
        for path in (broker.ca_file, broker.cert_file, broker.key_file):
            if path is not None:
                path.open("rb").close()
        path = broker.ca_file
        context = ssl.create_default_context(cafile=path)
        if broker.cert_file is not None:
            path = broker.cert_file
            # Without a password of some kind, OpenSSL asks for one at the terminal.
            context.load_cert_chain(path, broker.key_file, password=_no_passphrase)
    except (OSError, ValueError) as error:
        raise EndedError(Ending("files", error=error, path=path)) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("the key wants a passphrase")


def _connect(broker: Broker) -> socket.socket:
    try:
        found = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EndedError(Ending("resolve", error=error)) from None
    deadline = time.monotonic() + DIAL_SECONDS
    errors: list[OSError] = []
    for family, kind, number, _, address in found:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            sock = socket.socket(family, kind, number)
        except OSError as error:  # a kernel without IPv6
            errors.append(error)
            continue
        sock.settimeout(min(left, ADDRESS_SECONDS))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            errors.append(error)
        else:
            return sock
    raise EndedError(Ending("connect", error=min(errors, key=_uninformative)))


def _uninformative(error: OSError) -> int:
    """Rank what several addresses said: a refusal tells more than silence, silence more than no route."""
    if isinstance(error, ConnectionRefusedError):
        return 0
    return 1 if isinstance(error, TimeoutError) else 2


def _handshake(plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    why: Why = "handshake"
    try:
        wrapped = context.wrap_socket(
            plain, server_hostname=host.partition("%")[0], do_handshake_on_connect=False
        )
    except (OSError, ValueError) as error:
        plain.close()
        raise EndedError(Ending(why, error=error)) from None
    try:
        wrapped.settimeout(HANDSHAKE_SECONDS)
        wrapped.do_handshake()
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError):
            wrapped.close()
        raise EndedError(Ending(why, error=error)) from None
    return wrapped
