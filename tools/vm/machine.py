"""A Debian that runs in qemu, without KVM, and obeys commands.

Nothing here waits by sleeping: the machine says when it is up, a command when it has ended, and a condition
is waited for inside the machine.
"""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.vm.image import Image

BOOT_SECONDS = 300
HANG_SECONDS = 150
"""An emulator that has not come to Debian by then is taken for stuck: a timer of its guest stands still."""
HANGS = 2
"""So many boots that hang before Debian are begun anew."""
_DEBIAN = "/scripts/init-bottom ... done."
"""The last that initramfs says, on the console; what comes after it is Debian's."""
COMMAND_SECONDS = 240
"""For what is done in a second on a device, and in minutes by an emulator beside other work."""
MEASURED = ("psi=1",)
"""Words for a kernel that measures memory's pressure, and has control groups anyway."""
MEMORY_MEGABYTES = 1024
_QEMU = {
    # What a Pi 4 has; of x86-64 all that the emulator knows.
    "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72"],
    "amd64": ["qemu-system-x86_64", "-M", "q35", "-cpu", "max"],
}
_CONSOLE = {"arm64": "ttyAMA0", "amd64": "ttyS0"}


class MachineError(Exception):
    """The machine did not do what it must for the test to go on; with the end of its console."""


class HungError(MachineError):
    """The emulator hung before it came to Debian: nothing that is tried had a part in it."""


class CommandError(Exception):
    """A command in the machine failed."""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


class Machine:
    """One virtual machine with a disk of its own, from start to the next power cut.

    Attributes:
        boot: the kernel's name of this boot.
        hung: boots that hung before Debian, of which nothing is kept.

    Args:
        image: what it boots from; it is not written to.
        directory: for its disk, console and sockets; a later machine with the same one has the same disk.
        payload: another disk, read-only, which is mounted at /payload.
        kernel_options: more words for the kernel.
        log: a file that gets every write to its disk (tools/vm/writes.py).
    """

    def __init__(
        self,
        image: Image,
        directory: Path,
        *,
        payload: Path | None = None,
        kernel_options: Sequence[str] = MEASURED,
        log: Path | None = None,
    ) -> None:
        self.image = image
        self.boot = ""
        self.hung = 0
        self._directory = directory
        self._log = log
        self._command = self._qemu(payload, kernel_options)
        self._process: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self._listener: threading.Thread | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, Future[Said]] = {}
        self._up: Future[str] = Future()
        self._lock = threading.Lock()

    @property
    def disk(self) -> Path:
        """What the machine has written, over the image."""
        return self._directory / "disk.qcow2"

    def __enter__(self) -> Machine:
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            of_image = ["-F", "raw", "-b", str(self.image.disk)]
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *of_image, self.disk], check=True)
        before = self.disk.with_suffix(".before")
        shutil.copyfile(self.disk, before)
        while True:
            try:
                self._start()
            except HungError:
                if self.hung == HANGS:
                    raise
                self.hung += 1
                shutil.copyfile(before, self.disk)
            else:
                before.unlink()
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_power()

    def run(self, command: str, *, seconds: float = COMMAND_SECONDS) -> Said:
        """Run a shell command as root and return how it ended.

        Raises:
            MachineError: it did not end in time, or the machine died.
        """
        return self.ended(self.start(command), command, seconds)

    def start(self, command: str) -> Future[Said]:
        """Run a shell command beside others."""
        assert self._port is not None
        number = next(self._numbers)
        future = self._answers[number] = Future()
        line = json.dumps({"id": number, "command": command}).encode() + b"\n"
        with self._lock:
            self._port.sendall(line)
        return future

    def ended(self, future: Future[Said], command: str, seconds: float = COMMAND_SECONDS) -> Said:
        """Wait for the end of a command.

        Raises:
            MachineError: it did not end in time, or the machine died.
        """
        try:
            return future.result(seconds)
        except (FutureTimeoutError, OSError):
            raise MachineError(f"{command}: no end within {seconds:.0f} s\n{self.console()}") from None

    def out(self, command: str, *, seconds: float = COMMAND_SECONDS) -> str:
        """Run a command that must succeed and return what it printed.

        Raises:
            CommandError: it failed, with what it said.
        """
        said = self.run(command, seconds=seconds)
        if said.code != 0:
            raise CommandError(f"{command}: exit code {said.code}\n{said.out[-2000:]}{said.err[-2000:]}")
        return said.out.strip()

    def until(self, condition: str, *, seconds: float = 60) -> float:
        """Wait until a shell command succeeds; return after how many seconds it did.

        Raises:
            CommandError: it never did.
        """
        begun = time.monotonic()
        loop = f"until {condition}; do sleep 0.2; done"
        said = self.run(f"timeout {seconds} sh -c {shlex.quote(loop)}", seconds=seconds + 30)
        if said.code != 0:
            raise CommandError(
                f"not within {seconds:.0f} s: {condition}\n{said.out[-1000:]}{said.err[-1000:]}"
            )
        return time.monotonic() - begun

    def power_off(self, seconds: float = COMMAND_SECONDS) -> None:
        """Shut down as an operator does."""
        assert self._process is not None
        self.start("systemctl poweroff")
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise MachineError(f"it did not power off in {seconds:.0f} s\n{self.console()}") from None

    def cut_power(self) -> None:
        """End the machine at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._port is not None:
            self._port.close()
            self._port = None
        if self._listener is not None:
            self._listener.join()
            self._listener = None

    def console(self) -> str:
        """Return the end of what the kernel and systemd said."""
        texts = (self._directory / name for name in ("qemu.log", "console.log"))
        return "\n".join(text.read_text(errors="replace")[-3000:] for text in texts if text.exists())

    def _start(self) -> None:
        """Boot.

        Raises:
            HungError: the emulator did not come to Debian.
            MachineError: Debian did not come up.
        """
        if self._log:
            self._log.write_bytes(b"")
        (self._directory / "agent").unlink(missing_ok=True)
        self._up = Future()
        with (self._directory / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._connect()
            self.boot = self._wait_for_boot()
        except (OSError, FutureTimeoutError):
            self.cut_power()
            raise MachineError(f"it did not come up in {BOOT_SECONDS} s\n{self.console()}") from None
        except BaseException:
            self.cut_power()
            raise

    def _wait_for_boot(self) -> str:
        try:
            return self._up.result(HANG_SECONDS)
        except FutureTimeoutError:
            if _DEBIAN not in (self._directory / "console.log").read_text(errors="replace"):
                raise HungError(
                    f"the emulator hung for {HANG_SECONDS} s, before Debian\n{self.console()}"
                ) from None
        return self._up.result(BOOT_SECONDS - HANG_SECONDS)

    def _connect(self) -> None:
        """Connect with the port of the agent, which qemu makes as it starts."""
        assert self._process is not None
        deadline = time.monotonic() + 30
        while True:
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(str(self._directory / "agent"))
            except OSError:
                port.close()
                if self._process.poll() is not None:
                    raise MachineError(f"qemu did not start\n{self.console()}") from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
                continue
            self._port = port
            self._listener = threading.Thread(target=self._listen, args=(port,), daemon=True)
            self._listener.start()
            return

    def _listen(self, port: socket.socket) -> None:
        with port.makefile("rb") as lines:
            try:
                for line in lines:
                    self._take(json.loads(line))
            except (OSError, ValueError):
                pass
        gone = OSError("the machine is gone")
        if not self._up.done():
            self._up.set_exception(gone)
        for future in self._answers.values():
            future.set_exception(gone)

    def _take(self, words: dict[str, Any]) -> None:
        if "boot" in words:
            if not self._up.done():
                self._up.set_result(words["boot"])
            return
        future = self._answers.pop(words["id"])
        future.set_result(Said(words["code"], words["out"], words["err"]))

    def _qemu(self, payload: Path | None, kernel_options: Sequence[str]) -> list[str]:
        kind = self.image.architecture
        append = [
            "root=/dev/vda", "rw", f"console={_CONSOLE[kind]}", "loglevel=4", "systemd.show_status=false",
            "panic=-1", *kernel_options,
        ]  # fmt: skip
        command = [
            *_QEMU[kind], "-accel", "tcg,thread=multi", "-smp", "2", "-m", str(MEMORY_MEGABYTES),
            "-nodefaults", "-no-reboot", "-display", "none", "-nic", "user,model=virtio-net-pci",
            "-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd), "-append", " ".join(append),
            "-serial", f"file:{self._directory / 'console.log'}",
            *self._drive(),
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self._directory / 'agent'},server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=edged.agent", "-device", "virtio-rng-pci",
        ]  # fmt: skip
        if payload is not None:
            command += ["-drive", f"file={payload},if=virtio,format=raw,readonly=on"]
        return command

    def _drive(self) -> list[str]:
        """Return the disk, with the log of its writes where one is wanted."""
        disk = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={self.disk},cache.no-flush=on"
        device = ["-device", "virtio-blk-pci,drive=disk"]
        if self._log is None:
            return ["-blockdev", disk, *device]
        log = f"log.driver=file,log.filename={self._log},log-super-update-interval=1"
        device[-1] = device[-1].replace("=disk", "=logged")
        return [
            "-blockdev",
            disk,
            "-blockdev",
            f"driver=blklogwrites,node-name=logged,file=disk,{log}",
            *device,
        ]
