"""The state of an engine: plain values and named arrays, and both as bytes, versioned and checksummed."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.barriers import CostModel
from trading_worker.errors import SnapshotRefused

_HEAD = struct.Struct("<6sH32s")
_MAGIC = b"PFSNAP"
VERSION = 2


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is, apart from its bundle and its arrays."""

    time_ms: int
    symbols: tuple[str, ...]
    decision_spec: str
    bundle: str
    names: tuple[str, ...]
    """Strings that position details refer to."""
    costs: list[CostModel]
    """Cost models that position details refer to."""
    counters: dict[str, int]
    owed: list[tuple[int, int, float]]
    """Funding charged in minutes whose bar was absent: row, close time, rate."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineState:
    """Everything needed to continue except the bundle. Who keeps it decides whether `arrays` are copies."""

    about: About
    arrays: Mapping[str, NDArray[Any]]


class _Written(About, frozen=True, kw_only=True):
    arrays: dict[str, bytes]
    """Every array in numpy's own format, without pickling."""


def pack_array(array: NDArray[Any]) -> bytes:
    """An array as bytes, structured dtypes included."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array) if array.ndim else array, allow_pickle=False)
    return buffer.getvalue()


def unpack_array(data: bytes) -> NDArray[Any]:
    """The array of `pack_array`."""
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def encode(state: EngineState) -> bytes:
    """The snapshot's bytes."""
    about = {name: getattr(state.about, name) for name in About.__struct_fields__}
    written = _Written(**about, arrays={name: pack_array(array) for name, array in state.arrays.items()})
    payload = msgspec.msgpack.encode(written)
    return _HEAD.pack(_MAGIC, VERSION, hashlib.sha256(payload).digest()) + payload


def decode(snapshot: bytes) -> EngineState:
    """The state of `encode`; `SnapshotRefused` when the bytes are another version, damaged or none at all."""
    if len(snapshot) < _HEAD.size:
        raise SnapshotRefused(f"it has {len(snapshot)} bytes, which is less than its header")
    magic, version, digest = _HEAD.unpack_from(snapshot)
    payload = snapshot[_HEAD.size :]
    if magic != _MAGIC:
        raise SnapshotRefused("it does not begin as a snapshot")
    if version != VERSION:
        raise SnapshotRefused(f"its version is {version}, this program reads {VERSION}")
    if hashlib.sha256(payload).digest() != digest:
        raise SnapshotRefused("its checksum does not match")
    try:
        written = msgspec.msgpack.decode(payload, type=_Written)
    except msgspec.MsgspecError as error:
        raise SnapshotRefused(f"it cannot be read: {error}") from error
    return EngineState(written, {name: unpack_array(data) for name, data in written.arrays.items()})
