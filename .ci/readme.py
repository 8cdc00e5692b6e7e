"""Run the commands of a Markdown file's `sh` blocks as they are written, in order; stop at the first that fails.

A command whose comment says "until Ctrl-C" is started, must print addresses that all answer, and is then interrupted
as by Ctrl-C; it must end in order and leave nothing behind. Blocks of other kinds (`console`, none) are for reading
only: what they show needs the network.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

READY_S = 180.0
SETTLED_S = 20.0
"""A command that prints nothing for so long has started all that it starts."""
INTERRUPTED = (0, 130, -signal.SIGINT)
"""How a command may end on Ctrl-C."""


@dataclass(frozen=True)
class Command:
    """One line of a block."""

    line: str
    serves: bool


def commands(text: str) -> list[Command]:
    """The command lines of all `sh` blocks, without their comments; what fetches the clone itself is left out."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for written in block.splitlines():
            line, _, comment = written.partition("  #")
            if line.strip() and not line.startswith(("#", "git clone", "cd ")):
                found.append(Command(line.strip(), "until Ctrl-C" in comment))
    return found


def run(command: Command) -> int:
    """Run one command; its exit code."""
    shell = ["bash", "-euo", "pipefail", "-c", f"exec {command.line}"]
    if not command.serves:
        return subprocess.run(shell, check=False).returncode
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(shell, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        ready = _await_address(process, output)
        started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            code = 124
        _, left = psutil.wait_procs(started, timeout=10)
        output.seek(0)
        print(output.read()[-3000:])
    if not ready or left:
        print(f"it {'left processes behind' if ready else 'never answered'}: {left}")
        return code or 1
    return 0 if code in INTERRUPTED else code


def _await_address(process: subprocess.Popen[bytes], output: IO[str]) -> bool:
    """Whether it prints an address, prints nothing more for a while, and every address it printed answers."""
    deadline = time.monotonic() + READY_S
    printed, since = "", time.monotonic()
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(1.0)
        output.seek(0)
        before, printed = printed, output.read()
        since = time.monotonic() if printed != before else since
        addresses = set(re.findall(r"http://127\.0\.0\.1:\d+", printed))
        settled = time.monotonic() - since > SETTLED_S
        if addresses and settled and all(_answers(address) for address in addresses):
            return True
    return False


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310 - the pattern admits loopback only
            return True
    except urllib.error.HTTPError:
        return True  # an answer all the same: not every server has a page at /
    except OSError:
        return False


def main(path: str) -> int:
    """Run the commands of the file at `path`; the exit code of the first that fails, else 0."""
    found = commands(Path(path).read_text())
    if not found:
        print(f"{path} has no command to run")
        return 1
    # A script that runs this in the background has it ignore SIGINT, and what is ignored stays so in every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for command in found:
        print(f"\n$ {command.line}", flush=True)
        started = time.monotonic()
        code = run(command)
        print(f"[exit {code}, {time.monotonic() - started:.0f} s]", flush=True)
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
