"""The command line: `agent-core run | interactive | show-config | tools | doctor | recover`.

Only this package prints and exits. Commands import slow modules themselves, so that
`--help` is fast.

Exit codes: 0 success, 1 the session failed, 2 wrong usage or configuration,
130 interrupted.
"""

from agent_core.cli.group import main

__all__ = ["main"]
