"""The asynchronous shell of the worker: what brings bars to the deterministic core and carries its decisions out."""
