"""Runs an experiment: from the user's request to a run file.

settings    what `pyproject.toml` sets for a project
gate_base   what a gate takes from its base: settings, scenario files
planner     a request to a plan: scenarios, cells, limits
duration    how long a plan takes
scheduler   which pair runs next, and when to stop
scratch     the folder of the trials of a run
runner      a plan to a run file
doctor      how noisy this machine is
"""
