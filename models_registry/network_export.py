"""What every network leaves behind, and which of its formats is served.

A network is kept as Keras files, as a SavedModel, as one file for each format, and as two records: the metadata, which
a later training and the runtime go on from, and the curves of the training. Every format is measured on held-out rows
against Keras and at the live batch; what makes two outputs the same decision each network says itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.convert import FORMATS, convert
from models_registry.exports import LATENCY_ROWS, Parity, choose, report, sha256_of, with_latencies
from models_registry.manifest import Component, FormatReport, Metric
from models_registry.sessions import TfliteSession
from models_registry.thinning import evenly

Float32 = NDArray[np.float32]

REPRESENTATIVE_ROWS = 512
"""That INT8 is calibrated by."""


@dataclass(frozen=True)
class ExportConfig:
    """How a network is exported; the configuration of each adds how it is trained."""

    quantise: bool = True
    """Serve INT8 when it passes and is faster; `ENABLE_QUANTIZATION`."""
    agreement: float = 0.98
    """Parity: least share of decisions that a format has in common with Keras."""
    time_limit_s: float = 600.0
    """Of one conversion subprocess, which makes all formats: about a minute on an idle machine."""

    @property
    def training(self) -> dict[str, Any]:
        """What of it decides the trained network: all but how that is exported."""
        exporting = {field.name for field in dataclasses.fields(ExportConfig)}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in exporting}


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the network takes and gives, and what stands around it: the content of `NAME.json`."""

    inputs: list[str]
    outputs: list[str]
    parameters: dict[str, Any]
    decision_spec: str | None = None
    """Null for a network that takes no decision rows."""


@dataclass(frozen=True)
class NetworkFiles:
    """The names of a network's files in its component's folder."""

    name: str

    @property
    def keras(self) -> str:
        """The trained network: what a later training continues from."""
        return f"{self.name}.keras"

    def part(self, part: str) -> str:
        """A part of it as a Keras file of its own."""
        return f"{self.name}.{part}.keras"

    @property
    def saved_model(self) -> str:
        """A SavedModel, in one file: a bundle holds plain files."""
        return f"{self.name}.saved_model.zip"

    @property
    def metadata(self) -> str:
        """`Metadata`, as JSON."""
        return f"{self.name}.json"

    @property
    def curves(self) -> str:
        """The curves of the training, as JSON."""
        return f"{self.name}.curves.json"

    def format(self, name: str) -> str:
        """The file of a format.

        >>> NetworkFiles("a").format("tflite_int8")
        'a.int8.tflite'
        """
        return f"{self.name}.{name.removeprefix('tflite_')}.tflite"


def champion(folder: Path | None, files: NetworkFiles, model: str | None = None) -> Metadata | None:
    """The metadata of the champion in `folder`, to continue from it; None when there is none.

    `model` is the file that holds it, when that is not Keras'.
    """
    if folder is None or not (folder / (model or files.keras)).is_file() or not (folder / files.metadata).is_file():
        return None
    return msgspec.json.decode((folder / files.metadata).read_bytes(), type=Metadata)


def write_records(folder: Path, files: NetworkFiles, metadata: Metadata, curves: Mapping[str, Any]) -> None:
    """Write the metadata and the curves of the training."""
    content = msgspec.json.format(msgspec.json.encode(metadata, order="sorted"), indent=1)
    (folder / files.metadata).write_bytes(content + b"\n")
    (folder / files.curves).write_text(json.dumps(curves, indent=1, sort_keys=True) + "\n")


def take_weights(network: Any, path: Path) -> bool:
    """Give `network` the weights of the Keras file; False, and nothing is set, when that has other layers."""
    import keras

    weights = keras.models.load_model(path, compile=False).get_weights()
    if [part.shape for part in weights] != [part.shape for part in network.get_weights()]:
        return False
    network.set_weights(weights)
    return True


def origin(initial: Path | None, continued: bool) -> str:
    """What a component's note says of where its weights come from."""
    if initial is None:
        return ""
    if continued:
        return "continued from the champion"
    return "trained anew: the champion has no network with these inputs and layers"


def representative(rows: NDArray[Any], most: int = REPRESENTATIVE_ROWS) -> NDArray[Any]:
    """At most `most` of the rows, evenly spaced."""
    return rows[evenly(len(rows), most)]


class NetworkExport:
    """The files of one trained network, written to `folder` one after the other, and the component of them."""

    def __init__(self, name: str, folder: Path, config: ExportConfig) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.names = NetworkFiles(name)
        self._folder, self._config = folder, config
        self._files: dict[str, str] = {}
        self._formats: dict[str, FormatReport] = {}

    def path(self, part: str) -> Path:
        """Where a part of the network is written that is not kept."""
        return self._folder / self.names.part(part)

    def keep(self, network: Any, saved_model: Any = None, **parts: Any) -> None:
        """Write `network` and its `parts` as Keras files, and it, or `saved_model`, as a SavedModel."""
        models = {self.names.keras: network, **{self.names.part(part): model for part, model in parts.items()}}
        for file, model in models.items():
            model.save(self._folder / file)
        save_model(network if saved_model is None else saved_model, self._folder / self.names.saved_model)
        self.pin(*models, self.names.saved_model)

    def formats(
        self,
        source: str,
        calibration: Float32,
        held: Float32,
        parity: Callable[[list[Float32]], tuple[Mapping[str, float], float]],
        limits: Mapping[str, float] | None = None,
    ) -> str | None:
        """Make every format of the Keras file `source` and measure it; the one that is served, if any passes.

        `calibration` are fitted rows, `held` the rows that parity is judged on: given a format's outputs for them,
        `parity` says its errors by name (`max_error` among them) and the share of decisions that agree with Keras.
        `limits` are the largest errors with which a format passes. What goes wrong with a format is its own failure.
        """
        results = convert(
            self._folder / source, calibration, self._folder, FORMATS, time_limit_s=self._config.time_limit_s
        )
        batch = np.resize(held, (LATENCY_ROWS, *held.shape[1:]))
        calls: dict[str, Callable[[], object]] = {}
        for name, result in results.items():
            if result.path is None:
                self._formats[name] = FormatReport(passed=False, failed=result.failed)
                continue
            path = result.path.rename(self._folder / self.names.format(name))
            session = TfliteSession(path)
            errors, agreement = parity(session.run(held))
            self._formats[name] = report(path, Parity(errors, limits or {}, agreement, self._config.agreement))
            calls[name] = partial(session.run, batch)
            self.pin(path.name)
        self._formats = with_latencies(self._formats, calls)
        return self._choice[0]

    def served(self) -> TfliteSession:
        """The served file, loaded."""
        return TfliteSession(self._folder / self.names.format(str(self._choice[0])))

    def record(
        self,
        parameters: msgspec.Struct,
        curves: Mapping[str, Any],
        inputs: Sequence[str],
        outputs: Sequence[str],
        decision_spec: str | None = None,
    ) -> None:
        """Write the metadata and the curves."""
        metadata = Metadata(
            inputs=list(inputs),
            outputs=list(outputs),
            parameters=msgspec.to_builtins(parameters),
            decision_spec=decision_spec,
        )
        write_records(self._folder, self.names, metadata, curves)
        self.pin(self.names.metadata, self.names.curves)

    def component(
        self,
        parameters: msgspec.Struct,
        *,
        metrics: Mapping[str, Metric] | None = None,
        headline: str | None = None,
        around: Any = None,
        note: str = "",
    ) -> Component:
        """The component that serves the chosen format; without one it has no version and says why.

        `around` is what else makes two networks give the same, besides the served file: the version names both.
        """
        served, why = self._choice
        plain = msgspec.to_builtins(parameters)
        if served is None:
            return Component(
                version="none",
                served=None,
                format=None,
                formats=self._formats,
                files=self._files,
                fallback=why,
                parameters=plain,
            )
        found = self._formats[served]
        content = str(found.sha256) + ("" if around is None else json.dumps(around))
        return Component(
            version=str(found.sha256)[:12] if around is None else hashlib.sha256(content.encode()).hexdigest()[:12],
            served=found.file,
            format=served,
            formats=self._formats,
            files=self._files,
            metrics=dict(metrics or {}),
            headline=headline if metrics else None,
            parameters=plain,
            note="; ".join(filter(None, [why, note])),
        )

    @property
    def _choice(self) -> tuple[str | None, str]:
        return choose(self._formats, self._config.quantise)

    def pin(self, *files: str) -> None:
        """Take files of the folder into the component."""
        self._files |= {file: sha256_of(self._folder / file) for file in files}


def save_model(network: Any, path: Path) -> None:
    """The network as a SavedModel, zipped to `path`."""
    with TemporaryDirectory() as scratch:
        network.export(scratch, verbose=False)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(scratch).rglob("*")):
                if file.is_file():
                    # Without the time of writing.
                    archive.writestr(zipfile.ZipInfo(str(file.relative_to(scratch))), file.read_bytes())
