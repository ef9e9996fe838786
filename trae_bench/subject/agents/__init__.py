"""Any agent as a subject: its entry, its environment, and how it speaks.

entry       the record of an agent, read from TOML or from a command line
"""
