"""`python -m perpforge`."""

from perpforge.cli import app

app()
