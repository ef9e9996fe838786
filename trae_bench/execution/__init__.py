"""Runs a trial and measures it: in a fresh process, or in this one.

subprocess_executor   a trial in a fresh process
in_process            a trial in this process
launcher              the small process that starts, watches and reaps trials
launcher_client       the other end of the launcher's socket
worker, probes        the child's side
workspace             the folder of a trial
fingerprint           digests of transcript and workspace, and the oracle
host_lock             one run at a time on a host
callgrind             instruction counts under valgrind
"""
