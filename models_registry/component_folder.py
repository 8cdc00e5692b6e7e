"""A trained component in a folder of its own: its files and `component.json`, whose presence says that it is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from models_registry.manifest import Component, Metric, encode

COMPONENT_FILE = "component.json"
BY_BLOCK_FILE = "by_block.json"
"""Not in bundles: what the improvement of each metric is summed from, by block of time (`Metric.sums`)."""


def load_component(folder: str | Path) -> Component:
    """The component that a training wrote into `folder`."""
    return msgspec.json.decode((Path(folder) / COMPONENT_FILE).read_bytes(), type=Component)


def fresh(folder: str | Path) -> Path:
    """The folder for a training to write to: an interrupted one leaves no component there, but its checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMPONENT_FILE).unlink(missing_ok=True)
    return folder


def save_component(folder: Path, component: Component) -> Component:
    """Write `component.json`, last of all, and give the component back.

    The sums of its metrics go into `BY_BLOCK_FILE` and are not in what is written and given back.
    """
    sums = {name: metric.sums for name, metric in component.metrics.items() if metric.sums is not msgspec.UNSET}
    (folder / BY_BLOCK_FILE).unlink(missing_ok=True)
    if sums:
        (folder / BY_BLOCK_FILE).write_bytes(msgspec.json.encode(sums))
    plain = {name: msgspec.structs.replace(each, sums=msgspec.UNSET) for name, each in component.metrics.items()}
    component = msgspec.structs.replace(component, metrics=plain)
    partial = folder / f".{COMPONENT_FILE}.partial"
    partial.write_bytes(encode(component))
    partial.replace(folder / COMPONENT_FILE)
    return component


def metrics_by_block(folder: str | Path) -> dict[str, Metric]:
    """The metrics of the component in `folder`, with their sums."""
    path = Path(folder) / BY_BLOCK_FILE
    sums = msgspec.json.decode(path.read_bytes(), type=dict[str, tuple[list[float], ...]]) if path.exists() else {}
    return {
        name: msgspec.structs.replace(metric, sums=sums.get(name, msgspec.UNSET))
        for name, metric in load_component(folder).metrics.items()
    }


def component_of_bundle(bundle: Path, component: Component, folder: Path) -> Path:
    """Write the `component` of the bundle in the folder `bundle` to a folder of its own, and give that back.

    A training that continues from it, or a bundle that is assembled of it anew, finds there what its own training
    left; what only a training reads on the way (outputs of rows not seen) is not in bundles.
    """
    fresh(folder)
    for file in component.files:
        shutil.copyfile(bundle / file, folder / file)
    save_component(folder, component)
    return folder
