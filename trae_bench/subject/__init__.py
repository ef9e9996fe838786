"""The agents under test. `trae_bench.execution.ports` defines the interface.

agent_core   agent_core, run by `trae_bench.execution.worker`; only this module imports agent_core
command      any other agent, started by its command line
revisions    checks out commits of the subject and chooses their interpreters
notes        lines that git stores beside commits
install      environments with the subject's requirements, and their size on disk
"""
