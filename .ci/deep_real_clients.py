"""Real clients against the simulated exchange: prints the matrix of client × operation × result.

The clients live in an environment of their own (`REAL_CLIENTS_ENV`, else one in the cache folder), made when it is not
there. Exit code 1 when an operation fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / ".ci" / "real_clients"
PINS = ("ccxt==4.5.90", "binance-sdk-derivatives-trading-usds-futures==18.0.1")
SCRIPTS = ("ccxt_client.py", "sdk_client.py")


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
        *("--account", "doomed:secret:100", "--account", "sdk-doomed:secret:100"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def rows_of(python: Path, script: str, url: str, arguments: list[str]) -> list[dict[str, str]]:
    """What one client's script found; a script that breaks is a failed row of its own."""
    command = [str(python), script, url, *arguments]
    found = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=600)
    rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    if found.returncode or not rows:
        rows.append({"client": script, "operation": "the whole", "result": "FAILED", "detail": found.stderr[-2000:]})
    return rows


def show(rows: list[dict[str, str]]) -> None:
    """Print operations down, clients across, and what went wrong."""
    clients = list(dict.fromkeys(row["client"] for row in rows))
    results = {(row["operation"], row["client"]): row["result"] for row in rows}
    print("| operation | " + " | ".join(clients) + " |\n" + "|---" * (len(clients) + 1) + "|")
    for operation in dict.fromkeys(row["operation"] for row in rows):
        print(f"| {operation} | " + " | ".join(results.get((operation, each), "–") for each in clients) + " |")
    for row in rows:
        if row["result"] != "ok":
            print(f"{row['client']}, {row['operation']}: {row['detail']}")


def main(arguments: list[str]) -> int:
    """Run both clients, without their streams if `--quick`; print the matrix."""
    python = environment()
    process, url = simulator()
    try:
        rows = [row for script in SCRIPTS for row in rows_of(python, script, url, arguments)]
    finally:
        process.terminate()
        process.wait()
    show(rows)
    failed = sum(row["result"] != "ok" for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed or process.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
