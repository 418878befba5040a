"""The judge's thread, which also hears the signal that asks what the daemon is at."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog

from edged.watch.liveness.aside import aside
from edged.watch.liveness.dump import dump_all

if TYPE_CHECKING:
    from edged.core import Core
    from edged.watch.liveness.judge import Judge

_log = structlog.get_logger(__name__)

DUMP_SIGNAL = signal.SIGUSR1


class LivenessThread:
    """Lets a judge look again and again, and logs what everything is at on `DUMP_SIGNAL`.

    The signal is blocked and waited for, so that it is heard while the event loop stands still.

    Args:
        judge: looks.
        core: what is dumped.
    """

    def __init__(self, judge: Judge, core: Core) -> None:
        self._judge = judge
        self._core = core
        self._stopping = False

    def start(self) -> None:
        """Begin. Before other threads begin, which inherit that the signal is blocked; on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._judge.begin(self._loop)
        signal.pthread_sigmask(signal.SIG_BLOCK, [DUMP_SIGNAL])
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it. The signal stays blocked: one that comes late must not kill the daemon."""
        self._stopping = True
        assert self._thread.ident is not None
        signal.pthread_kill(self._thread.ident, DUMP_SIGNAL)
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._judge.step()
            except Exception as error:  # it must go on; while it fails, nothing feeds the watchdog
                aside(partial(_log.error, "the judge failed", exc_info=error))
            if signal.sigtimedwait([DUMP_SIGNAL], self._judge.period_seconds) and not self._stopping:
                aside(self._dump)

    def _dump(self) -> None:
        try:
            dump_all(self._core, self._loop)
        except Exception:
            _log.exception("not everything could be dumped")
