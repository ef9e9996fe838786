"""Runs a trial and measures it, in a fresh process or in this one.

ports                 protocols: executor, provider, subject
subprocess_executor   runs each trial in a fresh process
in_process            runs each trial in this process
executor_router       chooses between two executors by scenario
trial_result          checks the sessions of a trial and builds its sample
oracle                decides whether a session's result is correct
fingerprint           digests of transcripts and workspaces
pair_difference       describes the first difference between the two sides of a pair
launcher              the process that starts, watches and reaps trials
launcher_client       sends jobs to the launcher
worker, probes        run inside the trial's process
workspace             creates and removes the folders of a trial
host_lock             allows one run at a time per host
run_delay             measures how long a trial waited for a processor that others used
process_events        starts and ends of a trial's processes, from the kernel
tree_memory           samples the memory of a trial's processes together
written_files         files that a trial created or changed
callgrind             counts instructions under valgrind
"""
