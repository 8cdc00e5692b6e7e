"""What decides how the models of a bundle are trained, besides the data, and the one cut in time that they share:

fit | embargo | validation (stops early, calibrates) | embargo | holdout (judges only)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from models_registry.dynamic_selection import DynamicConfig
from models_registry.errors import NotEnoughData, TrainingConfigUnreadable
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.liquidity_predictor import LiquidityConfig
from models_registry.manifest import AUTOENCODER, DQN, DYNAMIC, FEATURE_NETWORK, LIQUIDITY, REGIME, WIN
from models_registry.regime_predictor import RegimeConfig
from models_registry.strategy_dqn import DqnConfig
from models_registry.structure_autoencoder import AutoencoderConfig
from models_registry.training_set import Split, TrainingSet, split_in_time
from models_registry.win_classifier import WinConfig

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training gives, besides the data."""

    seed: int = 7
    """Of every model; their own seeds are replaced by it."""
    holdout_start_ms: int | None = None
    """The holdout begins at this decision time; None leaves out the last `holdout_fraction` of the rows."""
    holdout_fraction: float = 0.2
    validation_fraction: float = 0.2
    """Of the rows before the holdout."""
    embargo_ms: int = 4 * HOUR_MS
    """Between the parts: as long as a label may last, and longer than a window looks back."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    win: WinConfig = field(default_factory=WinConfig)
    feature_network: NetworkConfig | None = None
    """None trains no feature network: its plain version stands in; so for `liquidity` and `dqn`."""
    liquidity: LiquidityConfig | None = None
    dqn: DqnConfig | None = None
    regime: RegimeConfig | None = None
    """None trains no regime predictor, and the bundle has none."""
    dynamic: DynamicConfig | None = None
    """None searches for no dynamic features, and the bundle has none."""
    plan: Mapping[str, float] = field(default_factory=dict)
    """The trade plan that the labels follow, recorded in the manifest; so are `costs`."""
    costs: Mapping[str, float] = field(default_factory=dict)
    hunting: Mapping[str, float] = field(default_factory=dict)
    """`terms.hunting_terms` of the settings by which candidates hunt liquidity; empty when none does."""
    parent: str | None = None
    """The bundle in use when this one was trained."""
    code_version: str = "unknown"
    bundle_version: str | None = None
    """None names the bundle by its components' versions; the registry gives it its number."""
    created_ms: int | None = None
    """None takes the last decision's time, so that equal data gives an equal manifest."""

    def as_json(self) -> dict[str, Any]:
        """As plain values, for the manifest: with the data it says all that a training of its bundle hangs on."""
        named = ("parent", "code_version", "bundle_version", "created_ms")
        plain = {name: value for name, value in asdict(self).items() if name not in named}
        return dict(msgspec.json.decode(msgspec.json.encode(plain)))

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> TrainingConfig:
        """What `as_json` gave; raises `TrainingConfigUnreadable`, which names the setting, for anything else.

        A setting that is not there is not filled in: its default may have been another when the bundle was trained.
        """
        try:
            found = msgspec.convert(dict(plain), cls)
        except msgspec.ValidationError as error:
            raise TrainingConfigUnreadable(str(error)) from error
        wanted = found.as_json()
        for difference, names in (("unknown", _beyond(plain, wanted)), ("missing", _beyond(wanted, plain))):
            if names:
                raise TrainingConfigUnreadable(f"{difference}: {', '.join(names)}")
        return found


def _beyond(one: Mapping[str, Any], other: Mapping[str, Any], within: str = "") -> list[str]:
    """The settings of `one` that `other` has not, by their paths."""
    found = []
    for name, value in one.items():
        if name not in other:
            found.append(f"{within}{name}")
        elif isinstance(value, Mapping) and isinstance(other[name], Mapping):
            found += _beyond(value, other[name], f"{within}{name}.")
    return found


def models_of(config: TrainingConfig) -> tuple[str, ...]:
    """The models of the bundles that are trained by `config`, in the order in which they read each other."""
    wanted = {
        AUTOENCODER: True,
        FEATURE_NETWORK: config.feature_network is not None,
        LIQUIDITY: config.liquidity is not None,
        REGIME: config.regime is not None,
        DYNAMIC: config.dynamic is not None,
        WIN: True,
        DQN: config.dqn is not None,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


def split_of(rows: TrainingSet, config: TrainingConfig) -> Split:
    """The cut in time that every model of this training uses; `NotEnoughData` for an empty set."""
    if not len(rows):
        raise NotEnoughData("a training", 0, 1)
    start = config.holdout_start_ms
    if start is None:
        start = int(rows.decided_at[min(int(len(rows) * (1 - config.holdout_fraction)), len(rows) - 1)])
    return split_in_time(
        rows.decided_at,
        rows.known_at,
        holdout_start_ms=start,
        validation_fraction=config.validation_fraction,
        embargo_ms=config.embargo_ms,
    )


def no_progress(stage: str, fraction: float) -> None:
    """Says nothing."""


def plain(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers as JSON has them."""
    return {name: float(value) for name, value in numbers.items()}
