"""Simulate a fleet of devices in one process at a real mosquitto, with `edgectl fleet watch` beside it.

Each device is a connection of its own: its birth at QoS 1, its will, at each interval health and four topics
of telemetry; it answers prompts and commands. A trial goes from rest to deaths (one in twenty at once) and to
a storm (every connection cut at once), and prints processor time, memory and lag of the simulator, the broker
and `fleet watch`. `ulimit -n` is looked at first.

Without --broker a mosquitto is started on a free port; with --tls it gets a certificate of its own (openssl).
The exit code is 0 if everything holds: whatever became of the devices was shown, and fleet watch took at most
half a core at rest.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.brokers import Mosquitto
from tools import trials
from tools.fleetsim.fleet import check_files
from tools.fleetsim.link import Place
from tools.fleetsim.trial import Plan, run

# The default of 1000 messages that may wait for a client is less than what is retained of a fleet.
BROKER = "allow_anonymous true\nmax_queued_messages 0\nset_tcp_nodelay true"


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()

    def trial(directory: Path, tell: trials.Tell) -> trials.Report:
        if options.broker:
            address = urlsplit(options.broker)
            tls = ssl.create_default_context(cafile=options.ca_file) if address.scheme == "mqtts" else None
            port = address.port or (8883 if tls else 1883)
            return _report(options, Place(address.hostname or "localhost", port, tls), None, tell)
        config, context = BROKER, None
        if options.tls:
            options.ca_file = str(certificate(directory))
            config += f"\ncertfile {options.ca_file}\nkeyfile {directory / 'key.pem'}"
            context = ssl.create_default_context(cafile=options.ca_file)
        broker = Mosquitto(directory / "broker", config=config)
        broker.start()
        try:
            return _report(options, Place("127.0.0.1", broker.port, context), broker.pid, tell)
        finally:
            broker.stop()

    return trials.carry_out("fleetsim", options, trial)


def _report(options: argparse.Namespace, place: Place, pid: int | None, tell: trials.Tell) -> trials.Report:
    plan = Plan(
        place=place,
        broker_pid=pid,
        root=options.root,
        devices=options.devices,
        interval=options.interval,
        seconds=options.seconds,
        watch=not options.no_watch,
        ca_file=options.ca_file,
    )
    with suppress(KeyboardInterrupt):
        return trials.Report(asyncio.run(run(plan, tell)))
    return trials.Report(trials.Verdict({}, {}, ["interrupted"]))


def certificate(directory: Path) -> Path:
    """Make a certificate for 127.0.0.1 and its key; return the certificate's file."""
    file = directory / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=fleetsim", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(directory / "key.pem"), "-out", str(file)]
    subprocess.run(words, check=True, capture_output=True)
    return file


def _parse() -> argparse.Namespace:
    parser = trials.options_of("fleetsim", __doc__)
    add = parser.add_argument
    add("--devices", type=int, default=5000, help="how many (default %(default)s)")
    add("--interval", type=float, default=10.0, help="of telemetry, in seconds (default %(default)s)")
    add("--seconds", type=float, default=30.0, help="how long to measure each part (default %(default)s)")
    add("--broker", metavar="URL", help="a broker that runs, instead of one of our own: mqtt://HOST[:PORT]")
    add("--root", default="edged", help="the first levels of the topics (default %(default)s)")
    add("--tls", action="store_true", help="speak TLS with our own broker")
    add("--ca-file", help="whom to trust with --broker mqtts://…")
    add("--no-watch", action="store_true", help="run no edgectl fleet watch beside it")
    options = parser.parse_args()
    try:
        check_files(options.devices)
    except ValueError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    sys.exit(main())
