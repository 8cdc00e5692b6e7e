"""The registry: bundles and their components in MLflow, and the moves of the champion.

A bundle is a version of the registered model `trading_bundle`, whose source is the artifact folder of a run; its
components are registered models of their own, to be looked at. Which bundle trades is one alias, `champion`, on the
bundle. Every move of it goes into the ledger, also one that was made by hand in the MLflow UI (`reconcile`).

Registering goes through a server, never through `sqlite:///`: only then can another host download the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models_registry.demotion import LIVE_UNTIL
from models_registry.errors import BundleRejected
from models_registry.ledger import CHALLENGER, CHAMPION, Action, Entry, Ledger, Move
from models_registry.mlflow_client import asking, client
from models_registry.mlflow_rest import BUNDLE_MODEL, RegistryAnswer, RegistryError

FILES = "files"
"""The artifact folder of a run that a model version points to; plots lie beside it."""


class PromotionRefused(RegistryError):
    """A version whose files are not what its manifest promises: it stays where it is, and so does the champion."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(f"{BUNDLE_MODEL} {version} is not promoted: {reason}")
        self.version = version
        self.reason = reason


class NothingToRollBack(RegistryError):
    """There is no earlier champion in the ledger."""

    def __init__(self, current: str | None) -> None:
        super().__init__(f"no champion before version {current or '(none)'} is in the ledger")
        self.current = current


@dataclass(frozen=True)
class RunRecord:
    """What a run shows in the MLflow UI beside its files.

    `plots` are PNG images by name. Metrics may be NaN: that, too, is shown as it fell.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    plots: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class BundleVersion:
    """One registered bundle. `created_ms` is the server's time; `aliases` are those that point to it now."""

    version: str
    created_ms: int
    aliases: tuple[str, ...]
    run_id: str
    source: str
    tags: Mapping[str, str]


def verify_bundle(folder: Path) -> None:
    """Check a downloaded bundle against its manifest and the current DecisionSpec; raises `BundleRejected`."""
    from features import DECISION_SPEC
    from models_registry.bundle import verify

    verify(folder, DECISION_SPEC)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Registry:
    """Registers bundles and moves the champion.

    Parameters
    ----------
    tracking_uri : address of the MLflow server (http…). A path or `sqlite:///` is refused.
    ledger : the ledger, or its path.
    verify : called with a version's downloaded files before it is promoted; raises when they are not whole.
    clock : milliseconds UTC, for the ledger.
    live_until : when the newest live outcome was known, in the market's time (ms), None before the first. It is entered
        with every move of the champion: what came before belongs to no later tenure (`demotion.tenure`).

    Every method raises `RegistryUnreachable` after one short retry when the server does not answer, and
    `RegistryAnswer` when it refuses.
    """

    def __init__(
        self,
        tracking_uri: str,
        ledger: Ledger | str | Path,
        *,
        verify: Callable[[Path], object] = verify_bundle,
        clock: Callable[[], int] = _now_ms,
        live_until: Callable[[], int | None] = lambda: None,
    ) -> None:
        if not tracking_uri.startswith(("http://", "https://")):
            raise RegistryAnswer(tracking_uri, 0, "NOT_A_SERVER", "bundles are registered through an MLflow server")
        self.tracking_uri = tracking_uri.rstrip("/")
        self.ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self._verify = verify
        self._clock = clock
        self._live_until = live_until
        self._client = client(self.tracking_uri)

    # --- registering ---

    def register(
        self,
        folder: str | Path,
        record: RunRecord | None = None,
        number: Callable[[str], object] | None = None,
        content: str | None = None,
    ) -> str:
        """Register a bundle folder as the next version of `trading_bundle`; returns the version.

        The files are uploaded before the version exists, so no version is ever half there. `number` is called with
        the version that the bundle will have, before the upload, to write it into the manifest. The same `content`
        again (a retried step) gives the version that it already has; it is the manifest's sha256 before it was
        numbered, unless the caller knows better what makes two bundles the same.
        """
        folder = Path(folder)
        digest = content or _sha256(folder / "manifest.json")
        with self.ledger.lock():
            known = self._find(BUNDLE_MODEL, digest)
            if known is not None:
                return known
            expected = int(self._newest() or 0) + 1
            while True:
                if number is not None:
                    number(str(expected))
                version = self._register(BUNDLE_MODEL, folder, record or RunRecord(), digest)
                if number is None or version == str(expected):
                    return version
                # The newest version had been deleted, or another host was quicker: this number is not ours.
                with self._asking():
                    self._client.delete_model_version(BUNDLE_MODEL, version)
                expected = int(version) + 1

    def register_component(
        self, name: str, folder: str | Path, record: RunRecord | None = None, content: str | None = None
    ) -> str:
        """Register a component's files as the next version of the model `name`; returns the version.

        The same `content` as before gives the version that it already has; it is the sha256 of `component.json`,
        unless the caller knows better what makes two components the same.
        """
        folder = Path(folder)
        digest = content or _sha256(folder / "component.json")
        return self._find(name, digest) or self._register(name, folder, record or RunRecord(), digest)

    def note(self, version: str, record: RunRecord) -> None:
        """Add numbers, tags and plots to a registered bundle, such as how it was judged."""
        with self._asking():
            run_id = str(self._client.get_model_version(BUNDLE_MODEL, version).run_id)
            self._log(run_id, record)
            for key, value in record.tags.items():
                self._client.set_model_version_tag(BUNDLE_MODEL, version, key, value)

    def _find(self, model: str, digest: str) -> str | None:
        """The version whose content was `digest` when it was registered, or None."""
        with self._asking():
            found = self._client.search_model_versions(f"name = '{model}' and tag.content = '{digest}'", max_results=1)
        return str(found[0].version) if found else None

    def _newest(self) -> str | None:
        bundles = self.list()
        return bundles[0].version if bundles else None

    def _register(self, model: str, folder: Path, record: RunRecord, digest: str) -> str:
        tags = {**record.tags, "content": digest}
        with self._asking():
            client = self._client
            experiment = client.get_experiment_by_name(model)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(model)
            run = client.create_run(experiment_id, tags={"mlflow.source.name": "perpforge", "content": digest})
            run_id = run.info.run_id
            try:
                self._log(run_id, record)
                client.log_artifacts(run_id, str(folder), FILES)
            except BaseException:
                # The error that ended the upload is the one to report, not a second one from marking the run.
                with contextlib.suppress(Exception):
                    client.set_terminated(run_id, "FAILED")
                raise
            client.set_terminated(run_id, "FINISHED")
            self._ensure_model(model)
            source = f"{run.info.artifact_uri}/{FILES}"
            version = client.create_model_version(model, source, run_id, tags=tags, await_creation_for=0)
        return str(version.version)

    def _log(self, run_id: str, record: RunRecord) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = _now_ms()
        self._client.log_batch(
            run_id,
            [Metric(key, float(value), now, 0) for key, value in record.metrics.items()],
            [Param(key, str(value)) for key, value in record.parameters.items()],
            [RunTag(key, value) for key, value in record.tags.items()],
        )
        self._log_plots(run_id, record.plots)

    def _log_plots(self, run_id: str, plots: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, image in plots.items():
                path = Path(folder) / f"{name.removesuffix('.png')}.png"
                path.write_bytes(image)
                self._client.log_artifact(run_id, str(path), "plots")

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    # --- looking ---

    def champion(self) -> str | None:
        """The version that trades, or None."""
        return self._alias(CHAMPION)

    def challenger(self) -> str | None:
        """The version that waits for its chance, or None."""
        return self._alias(CHALLENGER)

    def list(self) -> list[BundleVersion]:
        """Every registered bundle, the newest first."""
        with self._asking():
            found: list[Any] = []
            token = None
            while True:
                page = self._client.search_model_versions(f"name = '{BUNDLE_MODEL}'", page_token=token)
                found.extend(page)
                token = page.token
                if not token:
                    break
            # A search leaves the aliases out; they are kept on the registered model.
            aliases = self._client.get_registered_model(BUNDLE_MODEL).aliases if found else {}
        bundles = [
            BundleVersion(
                version=str(version.version),
                created_ms=int(version.creation_timestamp),
                aliases=tuple(sorted(name for name, at in aliases.items() if str(at) == str(version.version))),
                run_id=str(version.run_id),
                source=str(version.source),
                tags=dict(version.tags),
            )
            for version in found
        ]
        return sorted(bundles, key=lambda bundle: int(bundle.version), reverse=True)

    def download(self, version: str, folder: str | Path) -> Path:
        """The files of a bundle version into `folder`, which appears complete or not at all; returns it."""
        from mlflow.artifacts import download_artifacts

        target = Path(folder).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".incoming-") as incoming, self._asking():
            uri = self._client.get_model_version_download_uri(BUNDLE_MODEL, version)
            files = download_artifacts(artifact_uri=uri, dst_path=incoming, tracking_uri=self.tracking_uri)
            if target.exists():
                shutil.rmtree(target)
            Path(files).rename(target)
        return target

    # --- moving ---

    def promote(self, version: str, reason: str, by: str, details: Mapping[str, object] | None = None) -> Entry:
        """Make `version` the champion, once its files verify; returns the ledger's entry.

        Raises `PromotionRefused` when they do not: the champion stays.
        """
        with self.ledger.lock():
            self._reconcile()
            self._check(version)
            entry = self._move(CHAMPION, version, "promote", reason, by, details)
            if self._alias(CHALLENGER) == version:
                self._move(CHALLENGER, None, "promote", "it became the champion", by)
        return entry

    def challenge(self, version: str, reason: str, by: str, details: Mapping[str, object] | None = None) -> Entry:
        """Make `version` the challenger: it is judged and shadowed, it does not trade."""
        with self.ledger.lock():
            self._reconcile()
            return self._move(CHALLENGER, version, "challenge", reason, by, details)

    def rollback(self, reason: str, by: str, details: Mapping[str, object] | None = None) -> Entry:
        """Give the champion back to the version that the ledger names before the current one.

        Raises `NothingToRollBack` when there is none, `PromotionRefused` when its files no longer verify.
        """
        with self.ledger.lock():
            self._reconcile()
            return self._back("rollback", self._alias(CHAMPION), reason, by, details)

    def demote(self, version: str, reason: str, by: str, details: Mapping[str, object] | None = None) -> Entry | None:
        """Give the champion back to the version before `version`, if that is champion still; None if it is not.

        Raises what `rollback` raises: then the champion stays.
        """
        with self.ledger.lock():
            self._reconcile()
            if self._alias(CHAMPION) != version:
                return None
            return self._back("demotion", version, reason, by, details)

    def _back(
        self, action: Action, current: str | None, reason: str, by: str, details: Mapping[str, object] | None
    ) -> Entry:
        target = self.ledger.before(current)
        if target is None:
            raise NothingToRollBack(current)
        self._check(target)
        return self._move(CHAMPION, target, action, reason, by, details)

    def reconcile(self) -> tuple[Entry, ...]:
        """Enter every move that was made past the ledger, such as in the MLflow UI; returns the entries."""
        with self.ledger.lock():
            return self._reconcile()

    def _reconcile(self) -> tuple[Entry, ...]:
        found = []
        for alias in (CHAMPION, CHALLENGER):
            actual, entered = self._alias(alias), self.ledger.last(alias)
            if actual != entered:
                reason = "the alias was moved outside perpforge"
                details = self._with_live(alias, {})
                move = Move(
                    action="found",
                    alias=alias,
                    version=actual,
                    previous=entered,
                    reason=reason,
                    by="unknown",
                    details=details,
                )
                found.append(self.ledger.append(move, time_ms=self._clock()))
        return tuple(found)

    def _move(
        self,
        alias: str,
        version: str | None,
        action: Action,
        reason: str,
        by: str,
        details: Mapping[str, object] | None = None,
    ) -> Entry:
        """Move the alias, then enter it: after a crash in between, `reconcile` finds the alias moved, which is so."""
        previous, details = self._alias(alias), self._with_live(alias, details or {})
        self._point(alias, version)
        move = Move(
            action=action, alias=alias, version=version, previous=previous, reason=reason, by=by, details=details
        )
        return self.ledger.append(move, time_ms=self._clock())

    def _point(self, alias: str, version: str | None) -> None:
        with self._asking():
            if version is None:
                self._client.delete_registered_model_alias(BUNDLE_MODEL, alias)
            else:
                self._client.set_registered_model_alias(BUNDLE_MODEL, alias, version)

    def _with_live(self, alias: str, details: Mapping[str, object]) -> Mapping[str, object]:
        """The details of a move, of a champion's with the newest live outcome unless they have the one they rest on."""
        newest = self._live_until() if alias == CHAMPION and LIVE_UNTIL not in details else None
        return details if newest is None else {**details, LIVE_UNTIL: newest}

    def _check(self, version: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = self.download(version, Path(folder) / "bundle")
            try:
                self._verify(files)
            except BundleRejected as rejected:
                raise PromotionRefused(version, rejected.reason) from rejected

    def _alias(self, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        with self._asking():
            try:
                return str(self._client.get_model_version_by_alias(BUNDLE_MODEL, alias).version)
            except MlflowException as error:
                # 404 for an unknown model, 400 for an unknown alias of a known one.
                absent = error.error_code == "RESOURCE_DOES_NOT_EXIST" or str(error).endswith("not found.")
                if not absent:
                    raise
        return None

    def _asking(self) -> AbstractContextManager[None]:
        return asking(self.tracking_uri)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
