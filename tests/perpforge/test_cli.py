"""The command line: its help is quick, and its commands are where they should be."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from perpforge.cli import app


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("demo", "up", "mlflow", "worker", "simulator", "replay", "bundle", "settings", "compile"):
        assert command in result.output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; import perpforge.cli; "
        "heavy = {'tensorflow', 'mlflow', 'dagster', 'xgboost', 'numba', 'pyarrow', 'duckdb', 'numpy'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_settings_lists_the_environment() -> None:
    result = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "MIN_CONFIDENCE" in result.output


def test_a_demo_that_cannot_be_is_refused_before_anything_starts() -> None:
    result = CliRunner().invoke(app, ["demo", "--edge", "hidden"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "edge is planted or none" in result.output
