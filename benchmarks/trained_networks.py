"""What the networks and trees of a bundle are asked with, and the libraries that trained them asked the same."""

from __future__ import annotations
