"""Compare edged with llama-bench, llama-batched-bench and llama-server, side by side in one run.

    python -m tools.bench run MODEL.gguf --out results.json [--llama BIN] [--rounds N] [--quick]
    python -m tools.bench report results.json… --docs docs

Let the machine do nothing else meanwhile. `run` keeps what it has found after each load, and adds to a file
that is there already.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tools.bench import loads, report
from tools.bench.bars import outcomes
from tools.bench.client import ClientError
from tools.bench.determinism import DETERMINISTIC, compare
from tools.bench.lifetime import START, Lifetime
from tools.bench.results import Results, ResultsError
from tools.bench.session import Session, say
from tools.bench.sides import Edged, SideError
from tools.bench.statistics import LEAST_SAMPLES
from tools.bench.upstream import Tools, UpstreamError, obtain, system_info

ALONE, EIGHT, MEMORY = "one stream", "eight streams", "memory"
QUICK = (ALONE, EIGHT, "short prompts, 4 clients", "the usual load", START)
ALL = (ALONE, EIGHT, *(load.name for load in loads.SERVED), loads.BESIDE, MEMORY, START, DETERMINISTIC)
QUICK_ROUNDS = 2


def measure(
    model: Path,
    tools: Tools,
    out: Path,
    *,
    tables: dict[str, dict[str, Any]],
    rounds: int,
    select: bool,
    names: list[str],
) -> Results:
    """Measure the named loads of a model."""
    with Edged(model, tables).ready() as edged:
        results = Results.begin(out, model.name, about(edged, tables))
        session = Session(model, tools, tables, rounds=rounds, select=select, results=results)
        lifetime = Lifetime(model, tools, tables, rounds=rounds, results=results)
        work: dict[str, Callable[[], None]] = {
            ALONE: partial(session.alone, edged),
            EIGHT: partial(session.eight, edged),
            loads.BESIDE: partial(session.beside, edged),
            **{load.name: partial(session.served, load, edged) for load in loads.SERVED},
        }
        for name in (name for name in names if name in work):
            keep(results, out, name, work[name])
    deterministic = partial(compare, model, tables, rounds=rounds, results=results)
    for name, task in ((MEMORY, lifetime.memory), (START, lifetime.start), (DETERMINISTIC, deterministic)):
        if name in names:
            keep(results, out, name, task)
    return results


def keep(results: Results, out: Path, name: str, task: Callable[[], None]) -> None:
    """Measure one load and write the file anew."""
    began = time.monotonic()
    say(f"{name} …")
    task()
    results.save(out)
    say(f"  took {time.monotonic() - began:.0f} s")


def about(edged: Edged, tables: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what the figures depend on."""
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    settings = edged.settings()
    return {
        "machine": f"{processor}, {os.cpu_count()} cores, Linux {platform.release()}",
        "library": f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}; {system_info()}",
        "edged": tables,
        "threads": f"{settings.threads} generating, {settings.threads_batch} reading, for both sides",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def run(arguments: argparse.Namespace) -> None:
    """Measure, and say how the bars stand."""
    names = arguments.loads or list(QUICK if arguments.quick else ALL)
    tables: dict[str, dict[str, Any]] = {
        "model": {"context": arguments.context, "sequences": arguments.sequences},
        "engine": dict(arguments.engine or ()),
    }
    tools = obtain(arguments.llama, Path(".cache"))
    results = measure(
        arguments.model.resolve(),
        tools,
        arguments.out,
        tables=tables,
        rounds=QUICK_ROUNDS
        if arguments.quick and arguments.rounds is None
        else arguments.rounds or LEAST_SAMPLES,
        select=not arguments.quick,
        names=names,
    )
    found = outcomes(results)
    for outcome in found:
        compared = outcome.compared
        print(
            f"{outcome.verdict:9} {outcome.bar.load}: {outcome.bar.figure} {compared.median:.3f} "
            f"({compared.low:.3f} to {compared.high:.3f}), bar {outcome.bar.bar:g}"
        )
    print(report.verdicts(found))


def engine_setting(text: str) -> tuple[str, Any]:
    """Read KEY=VALUE of [engine]."""
    name, _, value = text.partition("=")
    plain = {"true": True, "false": False}.get(value, value)
    return name, int(value) if value.isdigit() else plain


def main() -> int:
    """Run a command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="measure one model")
    running.add_argument("model", type=Path, metavar="MODEL.gguf")
    running.add_argument("--out", type=Path, required=True, help="JSON file of results")
    running.add_argument(
        "--llama", type=Path, metavar="BIN", help="directory of llama.cpp's programs; else they are built"
    )
    running.add_argument("--rounds", type=int, help=f"of each load (default: {LEAST_SAMPLES})")
    running.add_argument(
        "--loads", nargs="+", choices=ALL, metavar="NAME", help=f"only these of: {'; '.join(ALL)}"
    )
    running.add_argument(
        "--quick", action="store_true", help="some loads in two rounds; proves nothing, but shows much"
    )
    running.add_argument("--context", type=int, default=4096, help="tokens of one request (default: 4096)")
    running.add_argument("--sequences", type=int, default=8, help="requests that run at once (default: 8)")
    running.add_argument(
        "--engine", type=engine_setting, nargs="+", metavar="KEY=VALUE", help="edged's keys of [engine]"
    )
    running.set_defaults(command=run)
    reporting = commands.add_parser("report", help="write the page and the charts")
    reporting.add_argument("results", type=Path, nargs="+", metavar="RESULTS.json")
    reporting.add_argument("--docs", type=Path, default=Path("docs"), help="where to (default: docs)")
    reporting.set_defaults(
        command=lambda arguments: report.write(
            [Results.load(path) for path in arguments.results], arguments.docs
        )
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers end with the run
    try:
        arguments.command(arguments)
    except (ClientError, ResultsError, SideError, UpstreamError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
