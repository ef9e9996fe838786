"""Minimal clients for the same conversation, as lower bounds. Each module runs in its own process.

Usage: `python -c "from tests.benchmarks.floors.X import main; main()" PREPARED BASE_URL WORKSPACE
[BASE_URL WORKSPACE ...]`. With more than one session, the first is a warm-up and the others run
concurrently.
"""
