"""What comes before Keras is used: that it is there, and that it repeats itself."""

from __future__ import annotations

import os
from importlib.util import find_spec

from models_registry.errors import TrainingUnavailable


def require(model: str) -> None:
    """Raises `TrainingUnavailable` for the training of `model` when TensorFlow is not installed."""
    if find_spec("tensorflow") is None:
        raise TrainingUnavailable(model, "tensorflow")


def prepare(seed: int) -> None:
    """Make what follows depend on the seed alone; imports TensorFlow."""
    # Read at TensorFlow's import; its notes on the processor would drown the caller's progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    # Names that Keras counts over the process are in exported files: begin anew.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
