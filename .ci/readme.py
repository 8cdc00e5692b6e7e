"""Run the commands of a Markdown file's `sh` blocks as they are written, in order; stop at the first that fails.

Blocks of other kinds (`console`, `python`, none) are for reading only.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path


def commands(text: str) -> list[str]:
    """The command lines of all `sh` blocks, comments and blank lines left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line and not line.startswith(("#", "git clone", "cd "))]


def main(path: str) -> int:
    """Run the commands of the file at `path`; the exit code of the first that fails, else 0."""
    found = commands(Path(path).read_text())
    if not found:
        print(f"{path} has no command to run")
        return 1
    # The tests' own line comes last, where a reader of the log looks for it.
    for command in sorted(found, key=lambda line: line.startswith("make test")):
        print(f"\n$ {command}", flush=True)
        started = time.monotonic()
        code = subprocess.run(["bash", "-euo", "pipefail", "-c", command], env=os.environ, check=False).returncode
        print(f"[exit {code}, {time.monotonic() - started:.0f} s]", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
