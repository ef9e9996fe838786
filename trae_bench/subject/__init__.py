"""What is measured. `executors.Subject` is the seam; a body of it is a module here.

reference   agent_core, run by `trae_bench.execution.worker` (the only module that knows agent_core)
command     any other agent, by its command line
"""
