"""A cluster of three nats-servers, whose MQTT keeps sessions and retained messages in JetStream."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

from tests.brokers import free_port

COUNT = 3
_STOP_SECONDS = 20.0
_CONFIG = """
server_name: node{number}
listen: 127.0.0.1:{client}
http: 127.0.0.1:{monitor}
jetstream {{ store_dir: "{directory}/node{number}", max_mem: 64M, max_file: 1G }}
cluster {{
  name: edged
  listen: 127.0.0.1:{route}
  routes: [{routes}]
}}
mqtt {{ host: 127.0.0.1, port: {mqtt}, ack_wait: "10s", max_ack_pending: 1000 }}
"""


class Cluster:
    """The nodes, each a process that can be killed and started again.

    Attributes:
        ports: where each node speaks MQTT.
        monitors: where each node says how it does, over HTTP.

    Args:
        directory: for configurations, logs and stores.

    Raises:
        FileNotFoundError: nats-server isn't installed.
    """

    def __init__(self, directory: Path) -> None:
        program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise FileNotFoundError("nats-server isn't installed: apt-get install nats-server")
        self._program = program
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ports = [free_port() for _ in range(COUNT)]
        self.monitors = [free_port() for _ in range(COUNT)]
        routes = [free_port() for _ in range(COUNT)]
        for number in range(COUNT):
            self._config(number).write_text(
                _CONFIG.format(
                    number=number,
                    directory=directory,
                    client=free_port(),
                    monitor=self.monitors[number],
                    route=routes[number],
                    routes=", ".join(f'"nats://127.0.0.1:{port}"' for port in routes),
                    mqtt=self.ports[number],
                )
            )
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, number: int) -> None:
        """Start a node; returns at once."""
        with (self._directory / f"node{number}.log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [self._program, "-c", str(self._config(number))], stdout=log, stderr=log
            )

    def kill(self, number: int) -> None:
        """End a node by SIGKILL."""
        self._end(number, signal.SIGKILL)

    def stop(self) -> None:
        """End all nodes."""
        for number in list(self._processes):
            self._end(number, signal.SIGTERM)

    def _end(self, number: int, how: signal.Signals) -> None:
        process = self._processes.pop(number)
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _config(self, number: int) -> Path:
        return self._directory / f"node{number}.conf"
