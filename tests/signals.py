"""Skip tests of signals that this process ignores."""

import signal

import pytest


def needs(number: signal.Signals) -> None:
    """Skip the test if this signal is ignored, because child processes inherit that.

    Shells ignore SIGINT in background jobs, and `nohup` ignores SIGHUP.
    """
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here")
