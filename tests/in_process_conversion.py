"""Conversions in the process that trains, for tests that are not about them: a subprocess loads TensorFlow anew."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from models_registry import convert


def convert_here(patch: pytest.MonkeyPatch) -> None:
    """Convert without a subprocess until `patch` is undone. What crashes then takes the test with it."""

    def run(arguments: list[str], scratch: Path, time_limit_s: float, child: convert.Child) -> convert._Report:
        convert._keras_model.cache_clear()  # another model may lie at the same path
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            child(arguments)
        lines = [json.loads(line) for line in said.getvalue().splitlines() if line.startswith('{"format"')]
        return convert._Report({line["format"]: line["failed"] for line in lines}, "not in a subprocess")

    patch.setattr(convert, "_forked", run)
