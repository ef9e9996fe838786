"""Any agent as a subject: its entry, its environment, and how it speaks.

entry           the record of an agent, read from TOML or from a command line
catalog         finds the agent that a user names
environment     builds and caches what an entry installs
contact         starts an agent once, to learn its protocol and its tools
refusing_proxy  a proxy that refuses requests to other hosts and remembers them
shipped         entries and scripts of agents that ship
"""
