"""A reference agent. Each optimisation has a baseline and a toggle, so it can be measured.

Importing this package prints nothing, reads no file and imports no third-party module.
Import the modules by name: `from agent_core.build import run_task`.
"""

__version__ = "0.1.0"
