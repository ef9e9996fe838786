"""Files of a run: the journal while it runs, the run file afterwards, and their verification."""
