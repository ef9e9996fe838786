"""Tests that send a signal need somebody who hears it."""

import signal

import pytest


def needs(number: signal.Signals) -> None:
    """Skips where whoever started the tests made them deaf to it, and so all that they start:
    a shell does with SIGINT for what it runs in the background, `nohup` with SIGHUP."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here")
