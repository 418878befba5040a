"""Measures what an edged at rest costs with a broker: processor, network, writes.

    python tools/rest_cost.py MODEL.gguf [--seconds N] [--runs N] [--json]

It starts a mosquitto and the real daemon with default settings, waits until both rest, and measures for so
many seconds: the share of a core that daemon and engine use, the bytes between daemon and broker with TCP/IP
headers (every packet on the loopback is looked at, which wants root), and what was written to the state
directory.
Run it on a machine that does nothing else; a whole number of minutes is a whole number of intervals.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon

SETTLE_SECONDS = 180.0  # by then the journal has put away what the start wrote
ETH_P_ALL = 3
PACKET_OUTGOING = 4
ETHERNET_BYTES = 14


class Cost(NamedTuple):
    """What a minute of rest costs; processor in percent of a core."""

    processor_percent: float
    network_bytes: float
    packets: float
    written_bytes: float
    writes: float


class Wire(threading.Thread):
    """Counts the packets from and to a TCP port on the loopback, each once, and their bytes from IP on."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.bytes = self.packets = 0
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.bind(("lo", 0))

    def run(self) -> None:
        """Count until the process ends."""
        while True:
            frame, (_, _, kind, *_) = self._socket.recvfrom(65_535)
            packet = frame[ETHERNET_BYTES:]
            if kind == PACKET_OUTGOING or len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != 6:
                continue
            header = (packet[0] & 15) * 4
            if self._port in struct.unpack_from("!HH", packet, header):
                self.bytes += struct.unpack_from("!H", packet, 2)[0]
                self.packets += 1


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def written(pid: int) -> int:
    """Return the bytes of pages that a process has made the kernel write."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def changes(directory: Path) -> dict[str, float]:
    """Return when each file of a directory was last written to."""
    return {str(path): path.stat().st_mtime for path in directory.rglob("*") if path.is_file()}


def measure(model: Path, seconds: float) -> Cost:
    """Start everything, let it rest and measure once."""
    with tempfile.TemporaryDirectory(prefix="edged-rest-", dir="/var/tmp") as name:
        directory = Path(name)
        broker = Mosquitto(directory / "broker")
        broker.start()
        (directory / "edged").mkdir()
        tables = {"model": {"path": str(model.absolute())}, "mqtt": {"url": broker.url}}
        daemon = Daemon(directory / "edged", tables, {})
        try:
            engine = daemon.wait_ready()
            wire = Wire(broker.port)
            wire.start()
            time.sleep(SETTLE_SECONDS)
            pids = (daemon.process.pid, engine)
            busy = sum(map(processor_seconds, pids))
            wrote, sent, packets = written(daemon.process.pid), wire.bytes, wire.packets
            files, logged = changes(daemon.directory), len(daemon.events)
            time.sleep(seconds)
            minutes = seconds / 60
            after = changes(daemon.directory)
            for path, at in after.items():
                if files.get(path) != at:
                    print(f"written to: {Path(path).relative_to(daemon.directory)}", file=sys.stderr)
            for event in daemon.events[logged:]:
                print(f"meanwhile: {event}", file=sys.stderr)
            return Cost(
                (sum(map(processor_seconds, pids)) - busy) / seconds * 100,
                (wire.bytes - sent) / minutes,
                (wire.packets - packets) / minutes,
                (written(daemon.process.pid) - wrote) / minutes,
                sum(files.get(path) != at for path, at in after.items()) / minutes,
            )
        finally:
            daemon.stop()
            broker.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--seconds", type=float, default=120, help="of each run (default: 120)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = [measure(options.model, options.seconds) for _ in range(options.runs)]
    if options.json:
        print(json.dumps([run._asdict() for run in runs], indent=1))
        return
    for field in Cost._fields:
        values = [getattr(run, field) for run in runs]
        print(f"{field:20} {statistics.median(values):10.3f}   ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
