"""What conversions load: imported once by the process that they are forked from.

Nothing may run here: forks of a process with TensorFlow's threads in it would hang.
"""

from __future__ import annotations

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import ai_edge_litert.interpreter  # noqa: F401
import keras  # noqa: F401
import onnxmltools  # noqa: F401
import tensorflow  # noqa: F401
import xgboost  # noqa: F401
