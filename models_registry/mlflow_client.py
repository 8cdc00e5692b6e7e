"""mlflow's own client, set up to answer soon, and its errors as the registry's two kinds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from models_registry.mlflow_rest import RegistryAnswer, RegistryUnreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # with mlflow's own defaults a call blocks for minutes when nobody answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""How mlflow's client is set up, unless the environment already says otherwise."""


def client(tracking_uri: str) -> MlflowClient:
    """A client of the server at `tracking_uri`."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri)


@contextlib.contextmanager
def asking(tracking_uri: str) -> Iterator[None]:
    """Turn what mlflow and requests raise into `RegistryUnreachable` and `RegistryAnswer`."""
    import requests
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except RestException as error:
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        raise RegistryAnswer(tracking_uri, status, str(error.error_code), str(error)) from error
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise RegistryAnswer(tracking_uri, status, "HTTP_ERROR", str(error)) from error
    except (MlflowException, requests.RequestException) as error:
        raise RegistryUnreachable(tracking_uri, str(error)) from error
