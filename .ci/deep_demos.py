"""The demo on every kind of market: with an edge, without one, recorded; what each must show and must not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil

from perpforge.demo.summary import Summary

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / ".perpforge" / "deep"
RECORDED = ROOT.parent / "shared" / "data" / "klines" / "um2025"
LIMIT_S = 300


def demo(name: str, *arguments: str) -> Summary:
    """Run the demo; its summary, after checking what every demo must show."""
    summary_file = OUT / f"{name}.json"
    command = ["make", "demo", f"ARGS=--summary {summary_file} {' '.join(arguments)}"]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    taken = time.monotonic() - started
    summary = msgspec.json.decode(summary_file.read_bytes(), type=Summary)
    print(f"demo {name}: {taken:.0f} s, {summary.models}, swap {summary.swap_ms:.1f} ms", flush=True)
    assert taken <= LIMIT_S, f"{taken:.0f} s is more than {LIMIT_S} s"
    assert len(summary.bundles) >= 2
    assert summary.signals > 0
    assert summary.positions > 0
    assert summary.live_labels > 0
    assert summary.waves > 0
    assert summary.waves_missed == 0
    return summary


def interrupted(after_s: float) -> None:
    """Ctrl-C in the middle leaves no process behind and no exit code 0."""
    run = subprocess.Popen([ROOT / ".venv/bin/perpforge", "demo"], cwd=ROOT, start_new_session=True)
    time.sleep(after_s)
    started = psutil.Process(run.pid).children(recursive=True)
    os.killpg(run.pid, signal.SIGINT)
    code = run.wait(60)
    _, left = psutil.wait_procs(started, timeout=5)
    assert started, "it had started nothing yet: interrupt it later"
    assert code != 0
    assert not left, left
    print(f"demo interrupted after {after_s:.0f} s: exit code {code}, {len(started)} processes ended", flush=True)


def main() -> int:
    """0 when every demo shows what it must."""
    OUT.mkdir(parents=True, exist_ok=True)
    planted = demo("planted", "--edge planted")
    assert planted.models["win_classifier"].skill, "the planted edge was not found"
    none = demo("none", "--edge none")
    assert not none.models["win_classifier"].skill, "skill was shown where there is none to have"
    if RECORDED.is_dir():
        demo("recorded", f"--klines {RECORDED}")
    else:
        print("demo recorded: left out, ../shared/data is not there")
    for after_s in (5.0, 40.0, 90.0):
        interrupted(after_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
