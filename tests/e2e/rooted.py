"""`edged` as a process of its own whose watches find /proc and /sys in a made-up tree.

The environment names the tree (EDGED_TEST_ROOT). Levels of memory are left, and too much heat is told,
ten times as soon as else.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from edged import __main__, app
from edged.watch.memory import policy, refit
from edged.watch.thermal import governor


def main() -> None:
    root = Path(os.environ["EDGED_TEST_ROOT"])
    policy.DWELL.update({level: seconds / 10 for level, seconds in policy.DWELL.items()})
    refit.GROW_SECONDS /= 10
    governor.TOO_HOT_SECONDS /= 10
    app.App = functools.partial(app.App, root=root)  # type: ignore[assignment,misc]
    __main__.main()


if __name__ == "__main__":
    main()
