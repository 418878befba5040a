"""Fleets at more than one broker: `nats` kills a node of a cluster, `bridge` cuts a site's mosquitto off.

nats: three nats-servers with JetStream (MQTT 3.1.1) behind a TCP balancer, simulated devices (tools.fleetsim)
and three real daemons. A requester asks the daemons all the time, while a node is killed and brought back.

bridge: devices and a daemon at a site's mosquitto, which is bridged to a central one where the requester is;
the line between them is broken and restored.

Every ask must get its terminal frame, whatever was accepted above all, and reports must come in each part but
while the bridge is cut. The model should be a small one (tools/make_tiny_model.py). The exit code is 0 if
everything holds, else 1.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tools import trials
from tools.cluster.run import bridge, cluster


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    parser = trials.options_of("cluster", __doc__)
    parser.add_argument("what", choices=("nats", "bridge"), help="the trial")
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--devices", type=int, default=500, help="simulated ones (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of each part (default %(default)s)")
    options = trials.parse(parser)
    run = cluster if options.what == "nats" else bridge

    def trial(directory: Path, tell: trials.Tell) -> trials.Report:
        return trials.Report(
            asyncio.run(run(directory, options.model, options.devices, options.seconds, tell))
        )

    return trials.carry_out("cluster", options, trial)


if __name__ == "__main__":
    sys.exit(main())
