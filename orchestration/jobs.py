"""Selections of assets that are run together."""

from __future__ import annotations

import dagster as dg

INGEST = ("universe", "klines", "funding", "features")
LEARN = (
    "labels",
    "training_set",
    "opportunities",
    "starting_point",
    "structure_autoencoder",
    "feature_network",
    "liquidity_predictor",
    "regime_predictor",
    "dynamic_features",
    "win_classifier",
    "strategy_dqn",
    "trading_bundle",
    "bundle_evaluation",
    "champion",
)

ingest = dg.define_asset_job(
    "ingest", dg.AssetSelection.assets(*INGEST), description="A day, or a range of days, of data."
)

ingest_journals = dg.define_asset_job(
    "ingest_journals", dg.AssetSelection.assets("live_labels"), description="Labels from published journal segments."
)

CONTINUE = {"ops": {"starting_point": {"config": {"champion": True}}}}
"""Configuration of a run whose models continue from the champion's."""

retrain = dg.define_asset_job(
    "retrain",
    dg.AssetSelection.assets(*INGEST, "live_labels", *LEARN),
    config=CONTINUE,
    description="Bring the klines up to the days that live labels are from, go on learning from the champion's models, "
    "and let the gate decide.",
)

retrain_from_scratch = dg.define_asset_job(
    "retrain_from_scratch",
    dg.AssetSelection.assets("live_labels", *LEARN),
    description="Learn anew from what the lake holds, so that nothing that has passed from model to model stays for "
    "ever. Where a bundle that continued from the champion waits for the gate too, the better of both goes before it.",
)

watch_champion = dg.define_asset_job(
    "watch_champion",
    dg.AssetSelection.assets("live_record"),
    description="Enter moves that were made by hand, and demote a champion that does not live up to its promotion.",
)

EVALUATE = ("model_evaluation",)

evaluate = dg.define_asset_job(
    "evaluate",
    dg.AssetSelection.assets(*EVALUATE),
    description="Judge the models forward in time on the current training set. It takes longer than a retraining.",
)

ALL = (ingest, ingest_journals, retrain, retrain_from_scratch, watch_champion, evaluate)
