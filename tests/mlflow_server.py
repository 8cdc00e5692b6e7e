"""One real MLflow server for all tests that need it: it takes ten seconds to start, and a moment to empty."""

from __future__ import annotations

import atexit
import functools
import tempfile

from models_registry.mlflow_rest import BUNDLE_MODEL
from models_registry.server import MlflowServer


@functools.cache
def _shared() -> MlflowServer:
    folder = tempfile.TemporaryDirectory(prefix="perpforge-mlflow-")
    atexit.register(folder.cleanup)
    server = MlflowServer(folder.name).start()
    atexit.register(server.stop)
    return server


def emptied_server() -> MlflowServer:
    """The running server, without a bundle."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    server = _shared()
    try:
        MlflowClient(server.url).delete_registered_model(BUNDLE_MODEL)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return server
