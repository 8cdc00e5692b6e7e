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
SCRIPTS = tuple(sys.argv[1:]) or ("ccxt_client.py", "sdk_client.py")


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
        *("--account", "key:secret:100000", "--account", "poor:secret:100"),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["url"]


def main() -> int:
    """Run both clients; print the matrix."""
    python, failed = environment(), 0
    process, url = simulator()
    try:
        print("| client | operation | result | detail |\n|---|---|---|---|")
        for script in SCRIPTS:
            found = subprocess.run([python, script, url], cwd=CLIENTS, capture_output=True, text=True, timeout=600)
            rows = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
            for row in rows:
                print(f"| {row['client']} | {row['operation']} | {row['result']} | {row['detail']} |", flush=True)
            failed += sum(row["result"] != "ok" for row in rows)
            if found.returncode or not rows:
                print(found.stderr[-3000:])
                failed += 1
    finally:
        process.terminate()
        process.wait()
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
