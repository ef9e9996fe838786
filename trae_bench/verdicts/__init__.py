"""What the rows of a run add up to.

gate       the exit code of a run, and the reason
run_diff   two stored runs compared
claims     sentences of a document, checked against runs
caveats    what a reader must know besides the table
"""
