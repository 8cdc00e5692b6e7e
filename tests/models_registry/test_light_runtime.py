"""What runs a bundle must not cost what trains one, or computes features."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

HEAVY = ("numba", "llvmlite", "tensorflow", "keras", "xgboost", "scipy", "sklearn", "pandas", "duckdb", "pyarrow")


@pytest.mark.parametrize("module", ["runtime", "bundle", "front"])
def test_importing_it_loads_no_heavy_library(module: str) -> None:
    script = f"""
        import sys

        import models_registry.{module}

        loaded = {{name.partition(".")[0] for name in sys.modules}}
        assert "numpy" in loaded
        assert not loaded & {set(HEAVY)!r}, loaded & {set(HEAVY)!r}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_the_names_of_features_are_loaded_when_they_are_asked_for() -> None:
    import features

    assert set(features.__all__) <= set(dir(features)) | set(features._HOME)
    assert all(getattr(features, name) is not None for name in features.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = features.nothing
