"""Trainings that need no TensorFlow and no subprocess: networks are their plain versions, trees convert in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models_registry import convert
from models_registry.convert import ONNX, Converted, file_of


def use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends. A subprocess imports for longer than a small training takes."""

    def in_place(model: Path, rows: np.ndarray, folder: Path, *_: object, **__: object) -> dict[str, Converted]:
        path = folder / file_of(ONNX)
        path.write_bytes(convert._to_onnx(str(model), rows))
        return {ONNX: Converted(ONNX, path, None)}

    monkeypatch.setattr("models_registry.win_classifier.convert", in_place)
    monkeypatch.setattr("models_registry.keras_setup.find_spec", lambda name: None)
