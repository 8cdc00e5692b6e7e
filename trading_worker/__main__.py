"""`python -m trading_worker`: the worker as a process, configured by its environment."""

from __future__ import annotations

import sys

from trading_worker.shell.process import main

if __name__ == "__main__":
    sys.exit(main())
