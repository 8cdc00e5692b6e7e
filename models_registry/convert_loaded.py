"""What conversions load: imported once by the process that they are forked from.

A fork has none of its parent's other threads, and a lock that one of them held is never let go. So the libraries are
kept from starting any, and nothing may run here.
"""

from __future__ import annotations

import os

os.environ |= {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}

import ai_edge_litert.interpreter  # noqa: F401
import keras  # noqa: F401
import onnxmltools  # noqa: F401
import xgboost  # noqa: F401
