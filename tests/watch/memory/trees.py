"""Made-up trees of what the kernel shows of memory, and readings made by hand."""

from __future__ import annotations

from pathlib import Path

from edged.watch.memory.reading import EngineMemory, Group, Machine, MemoryReading, Pressure

MIB = 1 << 20
PID = 4711
SERVICE = "system.slice/edged.service"
GROUP = f"sys/fs/cgroup/{SERVICE}"

PSI = (
    "some avg10={some} avg60=1.00 avg300=0.00 total=123\nfull avg10={full} avg60=0.10 avg300=0.00 total=45\n"
)


def lay(root: Path, *trees: dict[str, str]) -> Path:
    """Write the files of the trees, later ones over earlier ones."""
    for tree in trees:
        for name, text in tree.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def meminfo(
    total_kb: int, available_kb: int, swap_total_kb: int = 0, swap_free_kb: int = 0
) -> dict[str, str]:
    return {
        "proc/meminfo": f"MemTotal:{total_kb:>15} kB\nMemFree:{available_kb // 2:>15} kB\n"
        f"MemAvailable:{available_kb:>12} kB\nBuffers:           20480 kB\nSwapCached:            0 kB\n"
        f"SwapTotal:{swap_total_kb:>14} kB\nSwapFree:{swap_free_kb:>15} kB\nHugePages_Total:       0\n"
    }


# Raspberry Pi OS as it comes: memory cgroup off, PSI off, its file in the group there but unsupported.
STOCK_PI = meminfo(3_884_000, 3_100_000, 204_796, 204_796) | {
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    "/var/swap                               file\t\t204796\t\t0\t\t-2\n",
    "proc/self/cgroup": f"0::/{SERVICE}\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
    f"{GROUP}/cgroup.controllers": "cpu pids\n",
    "boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1-02 rootwait\n",
}

# A Pi whose swap is compressed memory, as the newer Raspberry Pi OS has it.
ZRAM_PI = meminfo(3_884_000, 3_100_000, 2_097_136, 2_000_000) | {
    "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    "/dev/zram0                              partition\t2097136\t\t97136\t\t100\n",
    "sys/block/zram0/mm_stat": "  99467264 31457280 33554432 0 33554432 12 0 0 0\n",
}

FULL = {
    "proc/self/cgroup": f"0::/{SERVICE}\n",
    "proc/pressure/memory": PSI.format(some="12.50", full="3.25"),
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    f"{GROUP}/memory.current": "524288000\n",
    f"{GROUP}/memory.high": "max\n",
    f"{GROUP}/memory.max": "838860800\n",
    f"{GROUP}/memory.swap.current": "1048576\n",
    f"{GROUP}/memory.stat": "anon 314572800\nfile 209715200\ninactive_file 104857600\nactive_file 52428800\n",
    f"{GROUP}/memory.events": "low 0\nhigh 3\nmax 7\noom 1\noom_kill 1\noom_group_kill 0\n",
    f"{GROUP}/memory.pressure": PSI.format(some="40.00", full="20.00"),
}

# A container: the group's path is hidden, its files lie at the top of what is mounted.
CONTAINER = meminfo(16_000_000, 12_000_000) | {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n",
    "sys/fs/cgroup/memory.current": "200000000\n",
    "sys/fs/cgroup/memory.high": "max\n",
    "sys/fs/cgroup/memory.max": "536870912\n",
    "sys/fs/cgroup/memory.stat": "anon 150000000\ninactive_file 20000000\n",
    "sys/fs/cgroup/memory.events": "oom 0\noom_kill 0\n",
}

VERSION_1 = {
    "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n",
}

ENGINE = {
    f"proc/{PID}/status": "Name:\tpython3\nRssAnon:\t   90000 kB\nRssFile:\t   88000 kB\n"
    "RssShmem:\t    2000 kB\nVmSwap:\t     512 kB\n",
    f"proc/{PID}/stat": f"{PID} (py) (x 9 9) S 1 1 1 0 -1 4194304 5000 0 321 0 10 5 0 0 20 0 4 0 100 1 1\n",
    f"proc/{PID}/smaps_rollup": "00400000-7fff000 ---p 0 0 [rollup]\nRss:  180000 kB\nPss: 150000 kB\n"
    "Pss_Dirty:  90000 kB\n",
}


def reading(
    available: float,
    total: float = 906,
    *,
    anonymous: float | None = None,
    mapped: float = 0,
    pid: int = PID,
    faults: int = 0,
    limit: float | None = None,
    limit_available: float | None = None,
    limit_spare: float | None = None,
    full: float | None = None,
    group_full: float | None = None,
    oom_kills: int = 0,
    disk_swap: float = 0,
) -> MemoryReading:
    """Return a reading; amounts in MiB."""
    group = None
    if limit is not None and limit_available is not None:
        group = Group(
            current=0,
            limit=int(limit * MIB),
            available=int(limit_available * MIB),
            spare=int((limit_available if limit_spare is None else limit_spare) * MIB),
            oom_kills=oom_kills,
        )
    return MemoryReading(
        machine=Machine(int(total * MIB), int(available * MIB), int(disk_swap * MIB), int(disk_swap * MIB)),
        group=group,
        machine_pressure=Pressure(full, full) if full is not None else None,
        group_pressure=Pressure(group_full, group_full) if group_full is not None else None,
        engine=None
        if anonymous is None
        else EngineMemory(pid, int(anonymous * MIB), int(mapped * MIB), 0, faults),
    )
