"""What can be wrong with TLS, and what to do."""

from __future__ import annotations

import ssl

from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.link.fault import Fault

# OpenSSL's X509_V_ERR_…
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = (18, 19)
_UNKNOWN_ISSUER = (2, 20, 21)
_HOST_MISMATCH = (62, 64)


def is_about_time(ending: Ending) -> bool:
    """Say whether a clock that is wrong explains why TLS failed."""
    return isinstance(ending.error, ssl.SSLCertVerificationError) and ending.error.verify_code in (
        _NOT_YET_VALID,
        _EXPIRED,
    )


def files(ending: Ending, broker: Broker) -> Fault:
    """Explain why our own files can't be used."""
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


def handshake(ending: Ending, broker: Broker, clock_synchronised: bool) -> Fault:
    """Explain why there is no TLS."""
    error = ending.error
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate(error, broker, clock_synchronised)
    if isinstance(error, TimeoutError):
        return Fault(
            f"{broker.url} took the connection and began no TLS",
            "the port may be one without TLS: write mqtt:// or the port of TLS (8883) in mqtt.url",
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        return alert(error, broker)
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


def alert(error: ssl.SSLError, broker: Broker) -> Fault:
    """Explain with what word the broker ended TLS."""
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
