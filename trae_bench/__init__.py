"""A performance laboratory for LLM agents: measured, paired, and verified.

Importing this package is silent and light: no file, no network, no third-party module.
"""

__version__ = "0.1.0"
