"""Where the broker is and how to log in there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edged.errors import invalid
from edged.settings.mqtt import MqttTable, parse_url

_LATENESS_SECONDS = 5
"""What is taken off the keep-alive that the broker is told. It shall cut off who has been silent for 1.5 of
them; mosquitto 2.0 looks every six seconds, in whole ones, so up to 7 s late: 1.5 of these make up.
What is left must be longer than `box.PATIENCE_SECONDS`, for brokers that are strict."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's address and what it wants to see of us.

    Attributes:
        host: a name or an address.
        port: its TCP port.
        tls: whether it speaks TLS.
        username: the name to log in with.
        password: what goes with it.
        ca_file: certificates of those who may vouch for it; None: the system's.
        cert_file: our own certificate.
        key_file: the key of it.
        keepalive_seconds: within 1.5 of these the broker is to notice a broken connection.
        protocol: the version of MQTT; auto: 5, and 3.1.1 where the broker does not speak it.
    """

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_seconds: int = 30
    protocol: Literal["auto", "5", "3.1.1"] = "auto"

    @classmethod
    def from_settings(cls, table: MqttTable) -> Broker:
        """Return the broker that the settings name.

        Raises:
            EdgedError: they name none.
        """
        address = parse_url(table.url)
        if address is None:
            raise invalid(f'mqtt.url = "{table.url}" names no broker: write mqtt://host or mqtts://host')
        host, port, tls = address
        return cls(
            host=host,
            port=port,
            tls=tls,
            username=table.username,
            password=table.password.get_secret_value() if table.password else None,
            ca_file=table.ca_file,
            cert_file=table.cert_file,
            key_file=table.key_file,
            keepalive_seconds=table.keepalive_seconds,
            protocol=table.protocol,
        )

    @property
    def told_keepalive_seconds(self) -> int:
        """How long the connection may be quiet before it is tried, as the broker is told, too."""
        if self.keepalive_seconds < 3 * _LATENESS_SECONDS:
            return self.keepalive_seconds
        return self.keepalive_seconds - _LATENESS_SECONDS

    @property
    def url(self) -> str:
        """The address as the settings write it, with its port and without secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"
