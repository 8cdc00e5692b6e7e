"""Files that one asset leaves for the next: folders kept in the lake under their content's hash."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from market.lake import Lake


class _Pointer(msgspec.Struct, frozen=True):
    digest: str
    files: list[str]


def put_folder(lake: Lake, name: str, folder: Path) -> str:
    """Keep the files of `folder` (none in folders below it) and make them the current ones of `name`.

    Returns their digest. What was kept before stays; the pointer moves last, so a reader never meets half a folder.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    contents = {path.name: path.read_bytes() for path in files}
    hashes = {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}
    digest = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()
    for file, data in contents.items():
        path = f"{name}/{digest}/{file}"
        if not lake.exists(path):
            lake.put_bytes(path, data)
    lake.put_bytes(f"{name}/current.json", msgspec.json.encode(_Pointer(digest, list(contents))))
    return digest


def get_folder(lake: Lake, name: str, folder: Path) -> str:
    """Write the current files of `name` to `folder`; returns their digest. `LakeMissing` when there are none."""
    pointer = msgspec.json.decode(lake.get_bytes(f"{name}/current.json"), type=_Pointer)
    folder.mkdir(parents=True, exist_ok=True)
    for file in pointer.files:
        (folder / file).write_bytes(lake.get_bytes(f"{name}/{pointer.digest}/{file}"))
    return pointer.digest
