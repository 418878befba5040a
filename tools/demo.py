"""Show edged at work: fetch the model, start the daemon, ask it both ways, look at its status, stop it.

It runs what a person would type, without root: the model and the log stay in .demo, the socket lies in
the user's runtime directory while the demo runs. What fails ends it with the daemon's log.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
HOME = ROOT / ".demo"
LOG = HOME / "edged.log"
PROGRAMS = Path(sys.executable).parent
MODEL = "smollm2-135m-instruct-q4_1"
QUESTION = "In one sentence: why is the sky blue?"
DEVICE = "demo"
BROKER_SECONDS = 10
READY_SECONDS = 180
STOP_SECONDS = 30


class DemoError(Exception):
    """A step of the demo went wrong."""


def main() -> int:
    """Run the demo; return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    HOME.mkdir(exist_ok=True)
    base = os.environ.get("XDG_RUNTIME_DIR")
    try:
        with tempfile.TemporaryDirectory(prefix="edged-demo.", dir=base) as runtime:
            demonstrate(Path(runtime))
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        if LOG.exists():
            print(f"The daemon's log ({LOG}):\n{LOG.read_text(errors='replace')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def demonstrate(runtime: Path) -> None:
    """Go through the steps, with a configuration of the demo's own."""
    with broker(runtime) as url:
        config = runtime / "edged.toml"
        config.write_text(
            f"device_id = {json.dumps(DEVICE)}\n"
            f"state_dir = {json.dumps(str(HOME / 'state'))}\nruntime_dir = {json.dumps(str(runtime))}\n"
            f"[model]\nname = {json.dumps(MODEL)}\n[mqtt]\nurl = {json.dumps(url)}\n"
        )
        # Settings of the person's own daemon have no say here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EDGED_")}
        environment["EDGED_CONFIG"] = str(config)
        environment["PATH"] = f"{PROGRAMS}{os.pathsep}{environment.get('PATH', os.defpath)}"
        LOG.unlink(missing_ok=True)

        run(environment, "edgectl", "model", "fetch", MODEL)
        with daemon(environment) as process:
            wait_until_ready(process, environment)
            run(environment, "edgectl", "ask", QUESTION)
            if url:
                run(environment, "edgectl", "mqtt", "ask", "--device", DEVICE, QUESTION)
            else:
                print("\nThe MQTT way is not shown: there is no mosquitto (apt-get install mosquitto).")
            run(environment, "edgectl", "status")
            print("\n$ kill -TERM", process.pid, flush=True)
            process.terminate()
            try:
                code = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise DemoError(f"edged did not stop within {STOP_SECONDS} s") from None
            if code != 0:
                raise DemoError(f"edged ended with status {code} instead of 0")
    if (runtime / "edged.sock").exists():
        raise DemoError("edged left its socket behind")
    print(f"edged stopped cleanly. Its model and log are in {HOME}; `make demo` starts at once now.")


@contextmanager
def broker(runtime: Path) -> Iterator[str]:
    """Run a mosquitto for this machine alone and give its URL; empty where there is none."""
    # Debian keeps daemons out of an ordinary user's PATH.
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if program is None:
        yield ""
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = runtime / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    print("\n$ mosquitto -c", config, "&", flush=True)
    process = subprocess.Popen(
        [program, "-c", config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_listening(process, port)
        yield f"mqtt://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(BROKER_SECONDS)


def wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Try the broker's port until somebody is there."""
    deadline = time.monotonic() + BROKER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise DemoError(f"mosquitto did not listen on port {port} within {BROKER_SECONDS} s")


def run(environment: dict[str, str], *command: str) -> None:
    """Show a command and run it."""
    print("\n$", shlex.join(command), flush=True)
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise DemoError(f"{shlex.join(command[:3])} ended with status {code}")


@contextmanager
def daemon(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the daemon, out of reach of the terminal's Ctrl-C; kill it if it is still there at the end."""
    print("\n$ edged --config", environment["EDGED_CONFIG"], "&", flush=True)
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            ["edged", "--config", environment["EDGED_CONFIG"]],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
    """Ask for the status until the daemon is ready."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise DemoError(f"edged ended at its start, with status {code}")
        answer = subprocess.run(
            ["edgectl", "status", "--json"], env=environment, capture_output=True, check=False
        )
        if answer.returncode == 0 and json.loads(answer.stdout)["phase"] == "ready":
            return
        time.sleep(0.1)
    raise DemoError(f"edged was not ready within {READY_SECONDS} s")


if __name__ == "__main__":
    sys.exit(main())
