"""`python -m trading_worker`: the worker as a process, configured by its environment."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _WithoutPandas(MetaPathFinder):
    """Lets `import pandas` fail as it does where it is not installed.

    pyarrow imports it wherever it finds it: a second and 80 MB for nothing that a worker uses.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a worker does without pandas", name=fullname)


sys.meta_path.insert(0, _WithoutPandas())

from trading_worker.shell.process import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
