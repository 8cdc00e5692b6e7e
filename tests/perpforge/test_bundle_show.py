"""`perpforge bundle show`: the manifest as it is, and a summary with where each model comes from."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from models_registry import registry as registry_module
from models_registry.ledger import Ledger
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    FEATURE_NETWORK,
    LIQUIDITY,
    MANIFEST_FILE,
    WIN,
    Component,
    FormatReport,
    Manifest,
    Metric,
    Provenance,
    SpecPin,
    TrainingRecord,
    encode,
)
from perpforge.cli import app

FIVE = (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, WIN, DQN)
SEEN = {
    "start_ms": 0, "end_ms": 1, "last_known_at": 2, "rows": 10, "live_labels": 0, "data_hash": "h", "seed": 7,
    "holdout_start_ms": 3,
}  # fmt: skip


def component(name: str) -> Component:
    """The win model is from scratch; the networks are continued from bundle 2."""
    formats = ("onnx",) if name == WIN else ("tflite_fp32", "tflite_int8")
    reports = {
        each: FormatReport(
            passed=True, file=f"{name}.{each}", bytes=4000, sha256="a" * 64, latency_us=100.0, latency_rows=200,
            speedup=2.5, max_error=0.01, agreement=0.99,
        )
        for each in formats
    }  # fmt: skip
    if name == WIN:
        reports["onnx"] = msgspec.structs.replace(reports["onnx"], speedup=1.0, original_us=1234.0)
    if name == LIQUIDITY:
        reports["tflite_int8"] = FormatReport(passed=False, failed="conversion was killed by SIGSEGV")
    again = name != WIN
    return Component(
        version="4",
        served=f"{name}.{formats[0]}",
        format=formats[0],
        formats=reports,
        files={f"{name}.{formats[0]}": "a" * 64},
        metrics={
            metric: Metric(value=0.5, baseline=0.6, baseline_name="nothing", improvement=0.1, interval=(0.05, 0.15))
            for metric in ("loss", "other")
        },
        headline="loss",
        parameters={"updates": 3 if again else 1, "analyses": 900 if again else 300},
        provenance=Provenance(**SEEN, decision_spec="d", continued_from="2" if again else None),  # type: ignore[arg-type]
    )


MANIFEST = Manifest(
    bundle_version="3",
    created_ms=1,
    parent="2",
    code_version="test",
    decision_spec=SpecPin(id="d", names=["a"]),
    plan={},
    costs={},
    training=TrainingRecord(**SEEN),  # type: ignore[arg-type]
    components={name: component(name) for name in FIVE},
    golden=None,
)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """`show champion` of a registry that holds the one bundle."""

    class Registry:
        def __init__(self, *_: object, **__: object) -> None:
            self.ledger = Ledger(tmp_path / "ledger.jsonl")

        def champion(self) -> str:
            return "3"

        def download(self, version: str, folder: Path) -> Path:
            assert version == "3"
            folder.mkdir()
            (folder / MANIFEST_FILE).write_bytes((tmp_path / "manifest").read_bytes())
            return folder

    monkeypatch.setattr(registry_module, "Registry", Registry)
    (tmp_path / "manifest").write_bytes(encode(MANIFEST))

    def run(*flags: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["bundle", "show", "champion", *flags, "--mlflow", "http://127.0.0.1:9"])
        assert done.exit_code == code, done.output
        return str(done.output)

    return run


def test_json_is_the_manifest_with_every_models_formats(show) -> None:  # type: ignore[no-untyped-def]
    shown = json.loads(show("--json"))
    assert msgspec.convert(shown, Manifest) == MANIFEST
    assert set(shown["components"]) == set(FIVE)
    for name, part in shown["components"].items():
        assert part["version"] == "4"
        assert part["file"] in part["files"]
        assert part["formats"][part["served"]]["file"] == part["file"]
        assert set(part["formats"]) == ({"onnx"} if name == WIN else {"tflite_fp32", "tflite_int8"})
        for report in part["formats"].values():
            fields = ("bytes", "latency_us", "speedup", "max_error", "agreement", "sha256")
            assert report["failed"] if not report["passed"] else all(report[field] is not None for field in fields)


def test_the_summary_says_where_each_model_comes_from(show) -> None:  # type: ignore[no-untyped-def]
    shown = show()
    assert f"{DQN} 4: {DQN}.tflite_fp32 (continued from bundle 2; updates 3, analyses 900)" in shown
    assert f"{WIN} 4: {WIN}.onnx (from scratch; updates 1, analyses 300)" in shown
    assert f"{LIQUIDITY}" in shown
    assert "onnx passed, 4000 bytes, 100 us a call, 1234 us a call of its original, 1.0 times fp32" in shown
    assert "loss 0.5, nothing 0.6; better by +0.1 (95 %: +0.05 to +0.15)" in shown
    assert shown.count(", shown as one of 5 claims") == 5, "every model's headline has a verdict, and no other"
    assert "tflite_int8 failed: conversion was killed by SIGSEGV" in shown


@pytest.mark.parametrize("file", ["ledger.jsonl", "trials.jsonl"])
def test_a_ledger_that_was_changed_is_told_of(file: str, show, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / file).write_text("{}\n")
    assert show(code=1).strip().startswith(f"{tmp_path / file} is broken at line 1: it is no record")


def test_a_manifest_that_cannot_be_read_is_told_of(show, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "manifest").write_bytes(b"{}")
    for flags in ((), ("--json",)):
        assert "bundle 3 cannot be read: its manifest.json cannot be read" in show(*flags, code=1)
