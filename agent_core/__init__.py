"""A reference agent core: every optimisation real, measurable, and behind one toggle.

Importing this package is silent and light: no file, no network, no third-party module.
The rooms are imported by name (`from agent_core.build import run_task`).
"""

__version__ = "0.1.0"
