"""Whether a training goes on from the champion's model, and what it records of that.

Going on saves most of the epochs, and keeps what older data taught. Two things would make its numbers untrue, and then
the training begins anew. A model that was fitted to rows of the new validation or holdout part would be stopped,
calibrated and judged by what it knows by heart. And what a model learnt on others' outputs is worth nothing on the
outputs of networks that have begun anew: latents have no meaning of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models_registry.component_folder import COMPONENT_FILE, load_component
from models_registry.manifest import Component, Provenance
from models_registry.provenance import PLAIN, READABLE, identity
from models_registry.training_set import Split


@dataclass(frozen=True)
class StartingPoint:
    """A model that a training may continue from."""

    bundle: str
    """The registered bundle that it is of."""
    folder: Path
    """With its files and `component.json`."""


@dataclass(frozen=True)
class Beginning:
    """How a training begins."""

    initial: Path | None = None
    """The folder that it continues from; None begins anew."""
    bundle: str | None = None
    why: str = ""
    """Why it begins anew although there is a model to continue from."""

    @classmethod
    def of(
        cls, name: str, start: StartingPoint | None, split: Split, below: Mapping[str, Component] | None = None
    ) -> Beginning:
        """The beginning of a training of the model `name` cut by `split`, which reads the components `below`."""
        if start is None or not (start.folder / COMPONENT_FILE).is_file():
            return cls()
        why = refusal(name, load_component(start.folder), start.bundle, split, below or {})
        return cls(why=why) if why else cls(start.folder, start.bundle)

    def recorded(self, component: Component, record: Provenance, split: Split) -> Component:
        """The trained component with its record, in which stands what it was continued from, if it was."""
        continued = self.initial is not None and component.served is not None and updates_of(component) > 1
        record = msgspec.structs.replace(
            record,
            validation_start_ms=split.validation_start_ms,
            continued_from=self.bundle if continued else None,
        )
        note = "; ".join(part for part in (component.note, f"trained anew: {self.why}" if self.why else "") if part)
        return msgspec.structs.replace(component, provenance=record, note=note)


def refusal(name: str, champion: Component, bundle: str, split: Split, below: Mapping[str, Component]) -> str:
    """Why the training of `name` must not continue from the `champion`'s model of `bundle`; empty when it may."""
    record = champion.provenance
    if champion.served is None:
        return "the champion has its plain version"
    if record is None or record.validation_start_ms is None:
        return "the champion does not say what it was fitted to"
    if record.validation_start_ms > split.validation_start_ms:
        return "the champion was fitted to rows that are to calibrate"
    if record.last_known_at >= split.holdout_start_ms:
        return "the champion has seen rows that are to judge"
    for other in READABLE.get(name, ()):
        present = below.get(other)
        if record.reads.get(other, PLAIN) != identity(present) and not _continued(present, bundle):
            return f"the champion read another {other}"
    return ""


def updates_of(component: Component) -> int:
    """Trainings that the model has been through, each from the one before; 0 for one that does not count them."""
    return int(component.parameters.get("updates", 0))


def analyses_of(component: Component) -> int:
    """Rows, windows or opportunities that they were fitted to, altogether."""
    return int(component.parameters.get("analyses", 0))


def _continued(component: Component | None, bundle: str) -> bool:
    record = None if component is None else component.provenance
    return record is not None and record.continued_from == bundle
