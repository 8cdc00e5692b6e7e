"""A trained component in a folder of its own: its files and `component.json`, whose presence says that it is whole."""

from __future__ import annotations

from pathlib import Path

import msgspec

from models_registry.manifest import Component, encode

COMPONENT_FILE = "component.json"


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
    """Write `component.json`, last of all, and give the component back."""
    partial = folder / f".{COMPONENT_FILE}.partial"
    partial.write_bytes(encode(component))
    partial.replace(folder / COMPONENT_FILE)
    return component
