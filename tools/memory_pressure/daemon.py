"""`edged` as a process of its own whose watches find /proc and /sys in a made-up tree: ROOT CONFIG."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from edged import log
from edged.app import App
from edged.settings import load


def main() -> None:
    """Serve until a signal ends it."""
    root, config = map(Path, sys.argv[1:])
    settings = load(config)
    log.configure(settings.log_level)

    async def serve() -> None:
        await App(settings, config, root=root).run()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
