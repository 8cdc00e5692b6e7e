"""Real clients and our own against the simulated exchange: prints the matrix of client × operation × result.

The others live in an environment of their own (`REAL_CLIENTS_ENV`, else one in the cache folder), made when it is not
there; ours runs in the project's. `--write` puts the matrix into docs/simulator.md; without it (and without `--quick`,
which leaves the streams out) it has to be there already. Exit code 1 when an operation fails, or the document is old.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / ".ci" / "real_clients"
PINS = ("ccxt==4.5.90", "binance-sdk-derivatives-trading-usds-futures==18.0.1")
SCRIPTS = ("ccxt_client.py", "sdk_client.py")
OWN_SCRIPT = "own_client.py"
DOCUMENT = ROOT / "docs" / "simulator.md"
TABLE = re.compile(r"^\| operation \|.*?\n\n\d+ operations, [^;]*;", re.MULTILINE | re.DOTALL)
"""The matrix in the document, and how many operations that were."""


def environment() -> Path:
    """The interpreter that has the clients."""
    chosen = os.environ.get("REAL_CLIENTS_ENV")
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "perpforge" / "real-clients"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
    return python


def simulator() -> tuple[subprocess.Popen[str], str]:
    """An exchange whose time is this machine's: one of the clients never asks a server for its time."""
    day = (datetime.now(UTC) - timedelta(days=3)).strftime("%Y-%m-%d")
    command = [
        *(sys.executable, "-m", "market.simulator"),
        *("--source", f"synthetic:seed=7,symbols=BTCUSDT+ETHUSDT,start={day}"),
        *("--real-time", "--updates-per-bar", "120", "--check"),
        *("--account", "ccxt:secret:100000", "--account", "sdk:secret:100000", "--account", "poor:secret:100"),
        *("--account", "doomed:secret:100", "--account", "sdk-doomed:secret:100", "--account", "own-doomed:secret:100"),
        *("--account", "own:secret:100000"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def rows_of(python: Path, script: str, url: str, arguments: list[str]) -> list[dict[str, str]]:
    """What one client's script found; a script that breaks is a failed row of its own."""
    command = [str(python), script, url, *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)} if script == OWN_SCRIPT else None
    found = subprocess.run(command, cwd=CLIENTS, env=environ, capture_output=True, text=True, timeout=600)
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    if found.returncode or not rows:
        rows.append({"client": script, "operation": "the whole", "result": "FAILED", "detail": found.stderr[-2000:]})
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """Operations down, clients across, and how many there were."""
    clients = list(dict.fromkeys(row["client"] for row in rows))
    results = {(row["operation"], row["client"]): row["result"] for row in rows}
    lines = [["operation", *clients], ["---"] * (len(clients) + 1)]
    lines += [
        [operation, *(results.get((operation, each), "–") for each in clients)]
        for operation in dict.fromkeys(row["operation"] for row in rows)
    ]
    failed = sum(row["result"] != "ok" for row in rows)
    drawn = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{drawn}\n\n{len(rows)} operations, {failed or 'none'} failed;"


def documented(found: str, *, write: bool) -> bool:
    """Whether the document has this matrix, after it was written there if that is wished for."""
    text = DOCUMENT.read_text(encoding="utf-8")
    if not TABLE.search(text):
        raise SystemExit(f"{DOCUMENT} has no matrix of operations to renew")
    if write:
        DOCUMENT.write_text(TABLE.sub(lambda _: found, text), encoding="utf-8")
        return True
    return found in text


def main(arguments: list[str]) -> int:
    """Run all clients, without their streams if `--quick`; print the matrix, and hold the document against it."""
    quick = [each for each in arguments if each == "--quick"]
    python = environment()
    process, url = simulator()
    try:
        rows = [row for script in SCRIPTS for row in rows_of(python, script, url, quick)]
        rows += rows_of(Path(sys.executable), OWN_SCRIPT, url, quick)
    finally:
        process.terminate()
        process.wait()
    found = table(rows)
    print(found.removesuffix(";"))
    for row in rows:
        if row["result"] != "ok":
            print(f"{row['client']}, {row['operation']}: {row['detail']}")
    failed = any(row["result"] != "ok" for row in rows)
    old = not quick and not documented(found, write="--write" in arguments)
    if old:
        print(f"{DOCUMENT} has another matrix: renew it with --write")
    return 1 if failed or old or process.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
