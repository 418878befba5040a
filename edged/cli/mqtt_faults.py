"""Why a broker can't be reached or doesn't want us, in plain words, and what helps."""

from __future__ import annotations

import socket
import ssl

from edged.cli.errors import CommandError, Exit
from edged.cli.mqtt_broker import Broker

_LOGIN = ("authori", "user name", "username", "banned")
_FILES = "--ca-file, --cert-file, --key-file, or [mqtt] of the configuration file"


class _Socket(ssl.SSLSocket):
    """Closes itself where the handshake fails: paho forgets it then."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(broker: Broker) -> ssl.SSLContext:
    """Return the TLS settings for a broker.

    Raises:
        CommandError: a file that was named can't be used.
    """
    name = broker.ca_file
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
        context.sslsocket_class = _Socket
        if broker.cert_file:
            name = f"{broker.cert_file} with {broker.key_file}" if broker.key_file else broker.cert_file
            context.load_cert_chain(broker.cert_file, broker.key_file, password=_no_passphrase)
    except PermissionError:
        raise CommandError(f"you may not read {name}", Exit.NOT_PERMITTED) from None
    except ssl.SSLError as error:
        what = f"{name} can't be used: {error.reason or 'it has no certificate or key in PEM'}"
        raise CommandError(what, Exit.USAGE, hint=_FILES) from None
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}", Exit.USAGE, hint=_FILES) from None
    return context


def unreachable(broker: Broker, error: Exception) -> CommandError:
    """Return the error of a connection that failed."""
    place = f"{broker.host}:{broker.port}"
    match error:
        case ssl.SSLCertVerificationError():
            what = f"the certificate of the broker {place} is not trusted: {error.verify_message}"
            hint = "--ca-file names the authority that signed it"
            if "mismatch" in error.verify_message or "doesn't match" in error.verify_message:
                hint = "the URL must have a name that stands in the certificate"
            elif "expired" in error.verify_message or "not yet valid" in error.verify_message:
                hint = "is this computer's clock right?"
        case ssl.SSLError() | ConnectionResetError() if broker.tls:
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            what = f"no TLS with the broker {place}: {reason.lower().replace('_', ' ')}"
            hint = "mqtt:// is without TLS and has port 1883, mqtts:// has 8883"
        case socket.gaierror():
            what = f"the broker's name {broker.host} is not known: {error.strerror}"
            hint = "check the name"
            if broker.host.endswith(".local"):
                hint = (
                    "a .local name needs multicast DNS: avahi-daemon and libnss-mdns, or use the IP address"
                )
        case ConnectionRefusedError():
            what, hint = f"nobody listens on {place}", "does the broker run, and is the port right?"
        case TimeoutError():
            what, hint = (
                f"the broker {place} does not answer",
                "is it on, and does a firewall let it through?",
            )
        case _:
            what = f"can't connect to the broker {place}: {getattr(error, 'strerror', None) or error}"
            hint = "check the address and the network"
    return CommandError(what, Exit.UNREACHABLE, hint=hint)


def silent(broker: Broker, what: str) -> CommandError:
    """Return the error of a connection on which no broker speaks."""
    hint = "mqtts:// if it wants TLS"
    if broker.tls:
        hint = "it may want a client certificate: --cert-file and --key-file"
    return CommandError(f"{broker.host}:{broker.port} {what}", Exit.UNREACHABLE, hint=hint)


def refused(broker: Broker, reason: str) -> CommandError:
    """Return the error of a broker that turned us down, for its own reason."""
    if any(word in reason.lower() for word in _LOGIN):
        whom = f"lets nobody in as {broker.username}" if broker.username else "wants a login"
        return CommandError(
            f"the broker {broker.host}:{broker.port} {whom}: {reason}",
            Exit.NOT_PERMITTED,
            hint="--username and --password-file",
        )
    return CommandError(
        f"the broker {broker.host}:{broker.port} refuses the connection: {reason}", Exit.UNREACHABLE
    )


def _no_passphrase() -> str:
    """Give OpenSSL an empty one, since it would otherwise ask for it on the terminal."""
    return ""
