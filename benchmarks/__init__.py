"""Benchmarks: each asserts parity, then prints what it measured beside a baseline of the same run."""
