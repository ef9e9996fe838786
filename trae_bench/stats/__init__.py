"""From samples to verdicts. Pure: no files, no clock, no randomness.

decision      the rule: looks, tests, verdicts
analysis      samples to rows of the table, and the noise floor
attribution   which toggle, or pair of toggles, causes an effect
"""
