"""The first: installed, asked, logged, confined."""

from __future__ import annotations

from tools.vm.device import PAYLOAD, Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("first_ask", "journal_fields", "daemon_is_confined", "engine_is_confined", "peers")
_STATUS = "grep -E 'Seccomp:|NoNew|CapEff|CapBnd'"


def installed(device: Device) -> str:
    """apt installs it; both units are enabled and run; there is no model yet, and that is told."""
    device.install("edged.deb")
    for unit in ("edged.service", "edged.socket"):
        show(device.property("UnitFileState", unit) == "enabled", f"{unit} is not enabled")
        show(device.property("ActiveState", unit) == "active", f"{unit} is not active")
    device.configure()
    return f"{device.machine.out('edged --version')}, engine ready after {device.ready():.0f} s"


def first_ask(device: Device) -> str:
    """The service is stopped; an ask over the socket, which stayed, starts it and is answered."""
    run = device.machine.out
    run("systemctl stop edged.service")
    show(device.property("ActiveState") == "inactive", "the service did not stop")
    show(
        run("stat -c '%F %U %G %a' /run/edged/edged.sock") == "socket edged edged 660",
        "the socket is another one",
    )
    answer = device.ask()
    show(device.property("ActiveState") == "active", "the ask did not start the service")
    show(answer, "the answer is empty")
    return "a stopped service was started by an ask"


def journal_fields(device: Device) -> str:
    """The journal knows level and fields of what was said, and nothing of the prompt."""
    device.ask("xyzzy and plugh")
    [accepted] = [entry for entry in device.journal("-n", "50") if entry["MESSAGE"].startswith("accepted")][
        -1:
    ]
    show(accepted["PRIORITY"] == "6", f"priority {accepted['PRIORITY']}")
    show(accepted.get("REQUEST_ID") and accepted.get("CLIENT"), f"no fields: {sorted(accepted)}")
    found = device.journal(f"REQUEST_ID={accepted['REQUEST_ID']}")
    show(len(found) > 1, "the journal does not find a request by its id")
    show("xyzzy" not in device.machine.out("journalctl -q"), "the journal has the prompt")
    return f"{len(found)} entries by REQUEST_ID, client {accepted['CLIENT']}"


def daemon_is_confined(device: Device) -> str:
    """Within the daemon's namespace even root finds no homes, and can't write to the system."""
    run, pid = device.machine.run, device.pid()
    inside = f"nsenter -t {pid} -m -- "
    device.machine.out("echo secret > /home/ada/secret && chmod 644 /home/ada/secret && chmod 755 /home/ada")
    show(run(f"{inside} cat /home/ada/secret").code != 0, "it reads /home")
    uid = device.machine.out("id -u edged")
    as_itself = f"{inside} setpriv --reuid {uid} --regid {uid} --clear-groups"
    show(run(f"{as_itself} touch /run/edged-was-here").code != 0, "it writes to /run")  # by file rights alone
    for place in ("/etc", "/usr", "/var", "/var/tmp", "/root", "/boot"):
        made = run(f"{inside} sh -c 'touch {place}/edged-was-here && rm {place}/edged-was-here'").code == 0
        show(not made or place == "/var/tmp", f"it writes to {place}")
    show(
        run(f"{inside} touch /var/lib/edged/x /run/edged/x").code == 0,
        "it can't write to its own directories",
    )
    show(run("test -e /var/tmp/edged-was-here").code != 0, "its /var/tmp is the machine's")
    lines = device.machine.out(f"{_STATUS} /proc/{pid}/status").splitlines()
    words = dict(line.split(":\t") for line in lines)
    show(words["Seccomp"] == "2" and words["NoNewPrivs"] == "1", f"unfiltered: {words}")
    show(int(words["CapEff"], 16) == 0 == int(words["CapBnd"], 16), f"it has capabilities: {words}")
    device.machine.out("rm -f /var/lib/edged/x /run/edged/x")
    return "no /home, read-only but for its own, no capabilities, filtered"


def engine_is_confined(device: Device) -> str:
    """The engine itself is made to call socket(2): EPERM; a shell of the same machine is not."""
    device.ready()
    inject = f"python3 -I {PAYLOAD}/inject.py"
    free = device.machine.out(f"sleep 60 & {inject} $!; code=$?; kill $!; exit $code")
    show(int(free) >= 0, f"the test itself is broken: a free process got {free}")
    result = device.machine.out(f"{inject} {device.engine()}")
    show(result == "-1", f"socket() in the engine gave {result}, not EPERM")
    device.ask()
    score = device.machine.out(
        f"cat /proc/{device.engine()}/oom_score_adj /proc/{device.pid()}/oom_score_adj"
    ).split()
    show(int(score[0]) > int(score[1]), f"oom_score_adj of the engine {score[0]}, of the daemon {score[1]}")
    return f"socket(): EPERM; oom_score_adj {score[0]}, the daemon's {score[1]}"


def peers(device: Device) -> str:
    """The daemon sees who asks, and who is not of the group can't."""
    ada = device.machine.out("id -u ada")
    device.ask(user="ada")
    clients = [
        entry["CLIENT"] for entry in device.journal("-n", "50") if entry["MESSAGE"].startswith("accepted")
    ]
    show(clients[-1].endswith(ada), f"asked by uid {ada}, and the daemon says {clients[-1]}")
    refused = device.machine.run(device.asking("Hello", user="bob"))
    show(refused.code == 4, f"bob, who is not of the group: exit code {refused.code}: {refused.err}")
    return f"uid {ada} is {clients[-1]}; others are not permitted"
