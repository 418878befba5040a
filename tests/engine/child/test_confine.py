"""What the engine child can no longer do, tried for real in child processes, and what it must still do."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.engine.child import confine

ROOT = Path(confine.__file__).parents[3]
MACHINE = os.uname().machine
LANDLOCK = int(
    ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)
)  # version; -1: the kernel has none
EPERM, ENOSYS, ALLOWED = errno.EPERM, errno.ENOSYS, 0

needs_seccomp = pytest.mark.skipif(
    "\nSeccomp:" not in Path("/proc/self/status").read_text(), reason="this kernel has no seccomp"
)
needs_landlock = pytest.mark.skipif(LANDLOCK < 1, reason="this kernel has no Landlock")

PRELUDE = f"""
import ctypes, errno, json, os, resource, signal, socket, sys, threading
from pathlib import Path
sys.path.append({str(ROOT)!r})
from edged.engine.child import confine
sys.path.remove({str(ROOT)!r})

libc = ctypes.CDLL(None, use_errno=True)

def attempt(action, *args, **kwargs):
    try:
        action(*args, **kwargs)
    except OSError as error:
        return errno.errorcode[error.errno]
    except confine.ConfinementError as error:
        return str(error)
    return "ok"

def call(number, *args):
    ctypes.set_errno(0)
    if libc.syscall(*(ctypes.c_long(value) for value in (number, *args))) >= 0:
        return "ok"
    return errno.errorcode[ctypes.get_errno()]

def tell(value):
    print(json.dumps(value), flush=True)
"""


def in_child(code: str, *args: object, **options: Any) -> Any:
    """Run `code` after the prelude in a process of its own; return what it told."""
    command = [sys.executable, "-c", PRELUDE + code, *map(str, args)]
    child = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True, **options)
    return json.loads(child.stdout)


# The filter itself.


def run_filter(program: list[confine.Instruction], arch: int, number: int, argument: int = 0) -> int:
    """Interpret a filter as the kernel would and return the errno it gives, 0 for allowed."""
    data = {0: number, 4: arch, 16: argument & 0xFFFFFFFF}
    accumulator, place = 0, 0
    while True:
        code, if_true, if_false, k = program[place]
        place += 1
        if code == 0x20:
            accumulator = data[k]
        elif code == 0x06:
            assert k == 0x7FFF0000 or k >> 16 == 0x0005
            return 0 if k == 0x7FFF0000 else k & 0xFFFF
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k != 0}[code]
            place += if_true if holds else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_exactly_the_listed_calls(machine: str) -> None:
    program = confine.filter_program(machine, 4711)
    arch = confine.AUDIT_ARCHES[machine]
    clone3, clone, tgkill = (
        getattr(numbers, machine) for numbers in (confine.CLONE3, confine.CLONE, confine.TGKILL)
    )
    expected = dict.fromkeys(range(600), ALLOWED)
    expected |= {
        getattr(numbers, machine): EPERM
        for numbers in confine.DENIED_CALLS.values()
        if getattr(numbers, machine) is not None
    }
    expected |= {clone3: ENOSYS, clone: EPERM, tgkill: EPERM}
    assert {number: run_filter(program, arch, number) for number in expected} == expected
    assert len(program) <= 255  # jumps are one byte


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_allows_threads_and_signals_to_oneself_only(machine: str) -> None:
    program = confine.filter_program(machine, 4711)
    arch = confine.AUDIT_ARCHES[machine]
    clone, tgkill = getattr(confine.CLONE, machine), getattr(confine.TGKILL, machine)
    pthread_create = (
        0x003D0F00  # CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CLEARTID
    )
    assert run_filter(program, arch, clone, pthread_create) == ALLOWED
    assert run_filter(program, arch, clone, 0x01200011) == EPERM  # fork
    assert run_filter(program, arch, clone, 0x10000000 | signal.SIGCHLD) == EPERM  # CLONE_NEWUSER
    assert run_filter(program, arch, tgkill, 4711) == ALLOWED
    assert run_filter(program, arch, tgkill, 4712) == EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_refuses_every_call_of_another_architecture(machine: str) -> None:
    program = confine.filter_program(machine, 4711)
    for arch in (
        0x40000003,
        0x40000028,
        0,
        *({*confine.AUDIT_ARCHES.values()} - {confine.AUDIT_ARCHES[machine]}),
    ):
        assert {run_filter(program, arch, number) for number in range(600)} == {EPERM}


def test_the_filter_refuses_x32() -> None:
    program = confine.filter_program("x86_64", 4711)
    assert {run_filter(program, confine.AUDIT_ARCHES["x86_64"], 0x40000000 | n) for n in range(600)} == {
        EPERM
    }


def test_other_processors_are_named_as_unserved() -> None:
    with pytest.raises(confine.ConfinementError, match="riscv64"):
        confine.filter_program("riscv64", 1)


@pytest.mark.parametrize(
    ("machine", "headers"),
    [
        ("x86_64", ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"]),
        ("aarch64", ["/usr/include/asm-generic/unistd.h"]),
    ],
)
def test_the_numbers_are_those_of_the_kernel_headers(machine: str, headers: list[str]) -> None:
    header = next((path for path in map(Path, headers) if path.exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    of_kernel = dict(re.findall(r"^#define __NR_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE))
    table = {
        **confine.DENIED_CALLS,
        "clone": confine.CLONE,
        "clone3": confine.CLONE3,
        "tgkill": confine.TGKILL,
    }
    ours = {name: getattr(numbers, machine) for name, numbers in table.items()}
    assert ours == {name: int(of_kernel[name]) if name in of_kernel else None for name in table}


# The filter in a process.


@needs_seccomp
def test_denied_calls_fail_in_a_child() -> None:
    # With -1 for every argument they would do nothing but fail anyway; fork, which has no arguments, would.
    numbers = {
        name: getattr(numbers, MACHINE)
        for name, numbers in confine.DENIED_CALLS.items()
        if "fork" not in name
    }
    outcome = in_child(
        """
numbers = json.loads(sys.argv[1])
confine.deny_syscalls()
tell({name: call(number, -1, -1, -1, -1, -1, -1) for name, number in numbers.items()})
""",
        json.dumps(numbers),
    )
    assert outcome == dict.fromkeys(numbers, "EPERM")


@needs_seccomp
def test_network_programs_and_other_processes_are_out_of_reach() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    idle = socket.socket()
    with listener, idle:
        address = listener.getsockname()
        outcome = in_child(
            """
listener, idle = (socket.socket(fileno=int(fd)) for fd in sys.argv[1:3])
address = ("127.0.0.1", int(sys.argv[3]))
confine.deny_syscalls()
tell({
    "tcp": attempt(socket.socket, socket.AF_INET),
    "udp": attempt(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": attempt(socket.socket, socket.AF_UNIX),
    "netlink": attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
    "socketpair": attempt(socket.socketpair),
    "connect": attempt(idle.connect, address),
    "bind": attempt(idle.bind, ("127.0.0.1", 0)),
    "listen": attempt(listener.listen),
    "accept": attempt(listener.accept),
    "exec": attempt(os.execv, sys.executable, [sys.executable]),
    "spawn": attempt(os.posix_spawn, sys.executable, [sys.executable], {}),
    "fork": attempt(os.fork),
    "signal": attempt(os.kill, os.getppid(), 0),
})
""",
            listener.fileno(),
            idle.fileno(),
            address[1],
            pass_fds=(listener.fileno(), idle.fileno()),
        )
    assert outcome == dict.fromkeys(outcome, "EPERM")


@needs_seccomp
def test_what_an_engine_does_still_works(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"w" * 8192)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"ping")
        outcome = in_child(
            """
import mmap
channel = socket.socket(fileno=int(sys.argv[1]))
confine.deny_syscalls()
received = channel.recv(4)
threads = [threading.Thread(target=channel.sendall, args=(b"pong",)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with open(sys.argv[2], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    weights = mapped[:4].decode()
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda value: value + 1)
tell([received.decode(), weights, callback(1), len(mmap.mmap(-1, 1 << 20))])
""",
            theirs.fileno(),
            file,
            pass_fds=(theirs.fileno(),),
        )
        assert outcome == ["ping", "wwww", 2, 1 << 20]
        assert ours.recv(64, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"pong" * 3


@needs_seccomp
def test_a_confined_process_can_still_abort() -> None:
    child = subprocess.run(
        [sys.executable, "-c", PRELUDE + "confine.deny_syscalls(); os.abort()"], timeout=60
    )
    assert child.returncode == -signal.SIGABRT


@needs_seccomp
@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and int 0x80 are ways in of x86-64")
def test_other_ways_into_the_kernel_are_shut() -> None:
    legacy_getpid = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000 cd80 c3"))  # mov eax, getpid of i386; int 0x80; ret
legacy = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
"""
    outcome = in_child("confine.deny_syscalls(); tell([call(39), call(0x40000000 | 39)])")
    assert outcome == ["ok", "EPERM"]
    try:
        assert in_child(legacy_getpid + "tell(legacy() == os.getpid())") is True
    except subprocess.CalledProcessError:
        pytest.skip("this kernel runs no 32-bit calls")
    assert in_child(legacy_getpid + "confine.deny_syscalls(); tell(legacy())") == -errno.EPERM


@needs_seccomp
def test_a_second_thread_is_no_way_round() -> None:
    outcome = in_child(
        """
release = threading.Event()
threading.Thread(target=release.wait).start()
tell([attempt(confine.deny_syscalls), attempt(socket.socket)])
release.set()
"""
    )
    assert outcome == ["2 threads run already; only this one would be confined", "ok"]


def test_a_kernel_that_takes_no_filter_is_named() -> None:
    outcome = in_child("confine._SECCOMP_MODE_FILTER = 77; tell(attempt(confine.deny_syscalls))")
    assert outcome == "the kernel took no system call filter: Invalid argument"


# Files.


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    """A directory that is lent to the child and one that isn't, with a link from the first into it."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for directory in (inside, outside):
        (directory / "below").mkdir(parents=True)
        (directory / "below" / "file").write_text("text")
    (inside / "link").symlink_to(outside / "below" / "file")
    return inside, outside


@needs_landlock
def test_only_the_given_directory_can_be_read(directories: tuple[Path, Path]) -> None:
    outcome = in_child(
        """
inside, outside = map(Path, sys.argv[1:])
already_open = open(outside / "below" / "file")
kept = confine.keep_to([inside])
tell({
    "kept": kept,
    "inside": attempt((inside / "below" / "file").read_text),
    "inside, list": attempt(os.listdir, inside),
    "outside": attempt((outside / "below" / "file").read_text),
    "outside, list": attempt(os.listdir, outside),
    "outside, by a link": attempt((inside / "link").read_text),
    "users": attempt(Path("/etc/passwd").read_text),
    "working directory": attempt(os.listdir),
    "open before": already_open.read(),
})
""",
        *directories,
        cwd=directories[1],
    )
    assert outcome == {
        "kept": True,
        "inside": "ok",
        "inside, list": "ok",
        "outside": "EACCES",
        "outside, list": "EACCES",
        "outside, by a link": "EACCES",
        "users": "EACCES",
        "working directory": "EACCES",
        "open before": "text",
    }


@needs_landlock
def test_a_single_file_can_be_lent_by_its_link(directories: tuple[Path, Path]) -> None:
    outcome = in_child(
        """
inside, outside = map(Path, sys.argv[1:])
confine.keep_to([inside / "link"])
tell([attempt((inside / "link").read_text), attempt((inside / "below" / "file").read_text)])
""",
        *directories,
    )
    assert outcome == ["ok", "EACCES"]


@needs_landlock
def test_nothing_can_be_written(directories: tuple[Path, Path]) -> None:
    inside, _ = directories
    outcome = in_child(
        """
inside = Path(sys.argv[1])
file = inside / "below" / "file"
confine.keep_to([inside])
tell({
    "new file": attempt((inside / "new").write_text, "x"),
    "old file": attempt(file.write_text, "x"),
    "append": attempt(open, file, "a"),
    "truncate": attempt(os.truncate, file, 0),
    "delete": attempt(file.unlink),
    "directory": attempt((inside / "sub").mkdir),
    "fifo": attempt(os.mkfifo, inside / "fifo"),
    "link": attempt((inside / "soft").symlink_to, "x"),
    "device": attempt(open, "/dev/null", "w"),
    "own score": attempt(Path("/proc/self/oom_score_adj").write_text, "0"),
    "program": attempt(os.posix_spawn, sys.executable, [sys.executable], {}),
})
""",
        inside,
    )
    refused = dict.fromkeys(outcome, "EACCES")
    if LANDLOCK < 3:
        refused["truncate"] = "ok"
    assert outcome == refused


@needs_landlock
def test_landlock_shuts_network_and_signals_where_it_can(tmp_path: Path) -> None:
    outcome = in_child(
        """
confine.keep_to([Path(sys.argv[1])])
with socket.socket() as tcp:
    tell([attempt(tcp.bind, ("127.0.0.1", 0)), attempt(os.kill, os.getppid(), 0)])
""",
        tmp_path,
    )
    assert outcome == ["EACCES" if LANDLOCK >= 4 else "ok", "EPERM" if LANDLOCK >= 6 else "ok"]


@needs_landlock
def test_the_interpreter_finds_all_that_it_needs(tmp_path: Path) -> None:
    in_child(
        """
confine.keep_to([Path(sys.argv[1])])
import decimal, sqlite3, statistics  # from the standard library, with shared objects
import jinja2.sandbox, structlog
import edged.protocol
for path in ("/proc/self/status", "/proc/meminfo", "/sys/devices/system/cpu/online", "/dev/null"):
    open(path).close()
assert len(open("/dev/urandom", "rb", buffering=0).read(8)) == 8
tell(None)
""".replace("import edged.protocol", f"sys.path.append({str(ROOT)!r}); import edged.protocol"),
        tmp_path,
    )


@needs_landlock
def test_what_is_lent_must_exist(tmp_path: Path) -> None:
    assert in_child("tell(attempt(confine.keep_to, [Path(sys.argv[1])]))", tmp_path / "nowhere") == "ENOENT"


@needs_landlock
def test_landlock_wants_a_single_thread_too() -> None:
    outcome = in_child(
        """
release = threading.Event()
threading.Thread(target=release.wait).start()
tell([attempt(confine.keep_to, []), attempt(Path("/etc/passwd").read_text)])
release.set()
"""
    )
    assert outcome == ["2 threads run already; only this one would be confined", "ok"]


def test_a_kernel_without_landlock_is_told_and_changes_nothing(tmp_path: Path) -> None:
    here = LANDLOCK < 1
    outcome = in_child(
        """
if sys.argv[2] == "False":
    confine._LANDLOCK_CREATE_RULESET = 9999  # no such call, as on a kernel without it
tell([confine.keep_to([Path(sys.argv[1])]), attempt(Path("/etc/passwd").read_text)])
""",
        tmp_path,
        here,
    )
    assert outcome == [False, "ok"]


# Both together, under the real library.


def test_a_model_loads_and_computes_after_confinement(tiny_model: Path) -> None:
    outcome = in_child(
        """
model_path = Path(sys.argv[1])
kept = confine.keep_to([model_path.parent])
denied = attempt(confine.deny_syscalls)
from edged.engine.child import llama
with llama.library(lambda level, line: None), llama.Model(model_path, use_extra_bufts=False) as model:
    tokens = model.vocabulary.tokenize("hello there", add_special=True, parse_special=False)
    with llama.Context(
        model, context=256, sequences=1, batch_tokens=64, ubatch_tokens=64, threads=2, threads_batch=2,
        kv_type="f16", flash_attention=False,
    ) as context:
        status, rows = context.decode([llama.Run(0, 0, tokens, True)])
tell([kept, denied, status.name, len(rows), attempt(socket.socket)])
""".replace(
            "from edged.engine.child import llama",
            f"sys.path.append({str(ROOT)!r}); from edged.engine.child import llama",
        ),
        tiny_model,
    )
    assert outcome == [LANDLOCK >= 1, "ok", "OK", 1, "EPERM"]


# Priority.


def test_the_child_offers_itself_to_the_oom_killer_and_dumps_no_core() -> None:
    before = int(Path("/proc/self/oom_score_adj").read_text())
    outcome = in_child(
        """
confine.lower_priority(int(sys.argv[1]), oom_score=300)
death = ctypes.c_int()
libc.prctl(2, ctypes.byref(death), 0, 0, 0)
score = int(Path("/proc/self/oom_score_adj").read_text())
tell([score, resource.getrlimit(resource.RLIMIT_CORE), death.value])
""",
        os.getpid(),
    )
    core = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    assert outcome == [min(before + 300, 1000), [core, core], signal.SIGKILL]


def test_the_oom_score_ends_at_its_maximum() -> None:
    outcome = in_child(
        """
confine.lower_priority(int(sys.argv[1]), oom_score=5000)
tell(Path("/proc/self/oom_score_adj").read_text())
""",
        os.getpid(),
    )
    assert outcome == "1000\n"


def test_a_crash_leaves_no_core(tmp_path: Path) -> None:
    code = """
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
confine.lower_priority(int(sys.argv[1]))
os.abort()
"""
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})" + PRELUDE + code, str(os.getpid())],
        os.environ,
    )
    _, status = os.waitpid(child, 0)
    assert (os.WTERMSIG(status), os.WCOREDUMP(status)) == (signal.SIGABRT, False)
    assert list(tmp_path.iterdir()) == []


def test_a_child_whose_daemon_is_gone_learns_it() -> None:
    assert in_child("tell(attempt(confine.lower_priority, os.getpid()))") == "ESRCH"


def test_the_child_dies_with_its_daemon() -> None:
    engine = PRELUDE + "confine.lower_priority(int(sys.argv[1])); print('ready', flush=True); signal.pause()"
    daemon = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], str(os.getpid())])"
    )
    with subprocess.Popen([sys.executable, "-c", daemon, engine], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.kill()
        readable, _, _ = select.select([parent.stdout], [], [], 30)
        # The engine holds the pipe's other end: it reads as ended when the engine has.
        assert readable and parent.stdout.read() == b""
