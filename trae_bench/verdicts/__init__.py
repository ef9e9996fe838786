"""Conclusions from the rows of a run.

gate          exit code of a run, and its reason
run_diff      compares two stored runs
run_data      indexes a stored run for the comparison
change        estimates one change between two stored runs
claims        checks claims of documents against runs
claims_file   reads and validates a claims file
claim_range   ratio ranges such as "60-80 % less"
caveats       warnings that a reader of a run needs besides the table
"""
