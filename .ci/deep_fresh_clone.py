"""README's two commands in a fresh clone, with an environment of its own, away from ../shared."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """0 when `make demo` and `make test` both pass in the clone."""
    with tempfile.TemporaryDirectory(prefix="perpforge-clone-") as folder:
        clone = Path(folder) / "perpforge"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PERPFORGE"))
        }
        environment["PERPFORGE_CACHE_DIR"] = str(Path(folder) / "kernels")
        for target in ("demo", "test"):
            code = subprocess.run(["make", target], cwd=clone, env=environment, check=False).returncode
            print(f"fresh clone: make {target} ended with {code}", flush=True)
            if code:
                return code
        left = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True)
        if left.stdout:
            print(f"fresh clone: the commands left files that git sees:\n{left.stdout}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
