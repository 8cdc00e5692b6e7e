"""The manifest of a bundle: everything that says what the bundle is, in one JSON file.

The types are frozen `msgspec` structs, so that the worker reads them without pydantic's cost and an
unknown or missing field is a typed refusal. JSON has no NaN: a number that does not exist is null.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

MANIFEST_FILE = "manifest.json"
SCHEMA = 3
"""Raised when a reader of the old layout would misunderstand the new one."""

AUTOENCODER = "structure_autoencoder"
FEATURE_NETWORK = "feature_network"
LIQUIDITY = "liquidity_predictor"
WIN = "win_classifier"
DQN = "strategy_dqn"
DYNAMIC = "dynamic_features"
"""Optional: only in bundles that were trained with them."""
REGIME = "regime_predictor"
"""Optional: a bundle without it is whole."""


class DecisionSpecLike(Protocol):
    """What this package needs to know of a `features.DecisionSpec`."""

    @property
    def id(self) -> str:
        """The name of the specification; equal names mean equal columns and equal numbers."""

    @property
    def names(self) -> Sequence[str]:
        """The columns of a decision row, in order."""


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One number on held-out data beside its baseline.

    `improvement` is positive when the model is better than the baseline, whatever the metric's sign, and
    `interval` its 95 % interval over blocks of time; null when there are too few blocks to say.
    """

    value: float | None
    baseline: float | None = None
    baseline_name: str = ""
    improvement: float | None = None
    interval: tuple[float, float] | None = None
    rows: int = 0
    blocks: int = 0
    note: str = ""
    sums: tuple[list[float], ...] | msgspec.UnsetType = msgspec.UNSET
    """`statistics.Interval.sums` of the improvement. Only on its way to `component_folder.BY_BLOCK_FILE`: a manifest
    has none, and leaves out the field."""

    @property
    def skill(self) -> bool:
        """Whether the whole interval of the improvement lies above zero."""
        return self.interval is not None and self.interval[0] > 0


class FormatReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one exported format of a model fared against the original."""

    passed: bool
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    latency_us: float | None = None
    """Median time of one call at `latency_rows` rows, one thread, in the live runtime: different at every training."""
    latency_rows: int | None = None
    speedup: float | None = None
    """Against fp32 in the same runtime: 1 for fp32 itself, and so for the win model's ONNX, which is fp32 and the only
    format of its runtime."""
    original_us: float | None = None
    """Median time of xgboost's own prediction, same rows and one thread, beside `latency_us` of the win model's ONNX.
    Null for networks, whose original is not timed."""
    max_error: float | None = None
    """Largest absolute difference of the first output to the original's."""
    errors: dict[str, float] = {}
    """The parity gate's numbers by name."""
    agreement: float | None = None
    failed: str | None = None
    """Why the format does not exist or did not pass."""


class TrainingRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What data the bundle has seen. Times are milliseconds UTC."""

    start_ms: int
    end_ms: int
    """The last decision that was fitted or used to stop and calibrate."""
    last_known_at: int
    """When the last outcome that the bundle has seen was known: a fair judge begins later."""
    rows: int
    live_labels: int
    data_hash: str
    """Of the training set that the labels are from."""
    seed: int
    holdout_start_ms: int
    """From here on nothing was fitted to."""
    splits: dict[str, int] = {}


class Provenance(TrainingRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What data one model has seen, recorded when it was trained, and the model that it reads.

    Its rows are labels or, for the autoencoder, windows; `data_hash` is that of the training set they are from.
    """

    decision_spec: str
    plan: dict[str, float] = {}
    """The trade plan that its labels follow; so do `costs`."""
    costs: dict[str, float] = {}
    hunting: dict[str, float] = {}
    """How many of its labels hunt liquidity (`rows`), and by which settings; empty when none does."""
    reads: dict[str, str] = {}
    """The models whose outputs it was trained on, by name, with `provenance.identity` of each: the autoencoder and what
    else the win model reads, the autoencoder of the strategy's latents, the regime predictor of dynamic features."""
    validation_start_ms: int | None = None
    """From here on rows stopped the training and calibrated: a training that continues from this model must not be
    calibrated by earlier ones. Null when nothing can be continued."""
    continued_from: str | None = None
    """The registered bundle whose model of this name the training continued from; null when it began anew."""


_WRITTEN = {"served": "file", "format": "served"}


class Component(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_WRITTEN):
    """One model of the bundle. In JSON `served` is called `file`, and `format`, a key of `formats`, `served`."""

    version: str
    served: str | None
    """The file that the worker runs; null when the fallback stands in."""
    format: str | None
    """Of that file, a key of `formats`."""
    formats: dict[str, FormatReport] = {}
    files: dict[str, str] = {}
    """sha256 of every file of this model in the bundle's folder."""
    metrics: dict[str, Metric] = {}
    headline: str | None = None
    """The metric that a summary shows."""
    fallback: str | None = None
    """Why the model is replaced by its plain version; null when it is not."""
    parameters: dict[str, Any] = {}
    provenance: Provenance | None = None
    """Null only in what no training wrote."""
    note: str = ""


class SpecPin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The DecisionSpec that every input of the bundle follows."""

    id: str
    names: list[str]


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs and outputs that a loaded bundle must reproduce within `tolerance`."""

    file: str
    sha256: str
    tolerance: dict[str, float]


class DecisionChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the served INT8 files change in the decisions of a whole bundle, against its fp32 files."""

    rows: int
    """Held-out decision rows that both were asked about, a candidate each."""
    win_probability_p99: float
    """Absolute change, 99th percentile."""
    win_probability_max: float
    actions_agreement: float
    """The share of rows in which the strategy would do the same."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle. `components` pins every model by sha256; `decision_spec` what they may be fed."""

    bundle_version: str
    created_ms: int
    parent: str | None
    code_version: str
    decision_spec: SpecPin
    plan: dict[str, float]
    costs: dict[str, float]
    hunting: dict[str, float] = {}
    """Of the win model: empty when it was trained without candidates that hunt liquidity."""
    training: TrainingRecord
    """Of all components together."""
    components: dict[str, Component]
    golden: Golden | None
    quantised: DecisionChange | None = None
    """Null when every network is served in fp32 or replaced, or when no row was held out."""
    config: dict[str, Any] = {}
    """The training's settings as plain values: what `reproduce` trains by."""
    metrics: dict[str, Metric] = {}
    schema: int = SCHEMA

    @property
    def fallbacks(self) -> dict[str, str]:
        """The models that their plain version stands in for, with the reason."""
        return {name: part.fallback for name, part in self.components.items() if part.fallback is not None}


def finite(value: float) -> float | None:
    """A number for JSON: null when it is not finite.

    >>> finite(1.5), finite(float("nan"))
    (1.5, None)
    """
    return float(value) if math.isfinite(value) else None


def encode(manifest: msgspec.Struct) -> bytes:
    """Stable JSON: sorted keys, two spaces, one newline at the end. Works for every record of this module."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """The manifest in `data`; `ValueError` (of msgspec) names the field that is wrong."""
    manifest = msgspec.json.decode(data, type=Manifest)
    if manifest.schema != SCHEMA:
        raise ValueError(f"manifest schema {manifest.schema}, this version reads {SCHEMA}")
    return manifest


def component_digest(component: Component) -> str:
    """sha256 over what makes two components the same model.

    Left out are the measured latencies, the number that a registry gave, and the files that are not served: they are
    kept for a later training, and Keras writes the time into its own.
    """
    return hashlib.sha256(encode(_timeless(component))).hexdigest()


def content_digest(manifest: Manifest) -> str:
    """sha256 over what makes two bundles the same: equal data and settings give an equal one.

    Left out are what `component_digest` leaves out, the bundle's own number, which bundle was champion meanwhile, and
    the settings and the code, of which the components are what came.
    """
    components = {name: _timeless(part) for name, part in manifest.components.items()}
    same = msgspec.structs.replace(
        manifest, components=components, parent=None, bundle_version="", config={}, code_version=""
    )
    return hashlib.sha256(encode(same)).hexdigest()


def _timeless(component: Component) -> Component:
    formats = {
        name: msgspec.structs.replace(found, latency_us=None, speedup=None, original_us=None)
        for name, found in component.formats.items()
    }
    served = {file: digest for file, digest in component.files.items() if file == component.served}
    return msgspec.structs.replace(component, formats=formats, files=served, version="")
