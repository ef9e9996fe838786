"""Turns samples into verdicts. Pure: no files, no clock, no randomness.

student_t       Student's t distribution; Welch-Satterthwaite degrees of freedom
decision        estimates, tests at each look, and verdicts for the rows of a run
metric_rules    decision rule, threshold and minimum difference of each metric
pairs           groups samples into pairs and decides which pairs count
noise           noise estimates from A/A pairs, and which metrics are reliable
confirmation    tests regressions again on fresh pairs
analysis        builds the rows of the result table from the samples
effect_weights  weights that turn contrasts into effects of toggles
attribution     attributes changes to toggles and pairs of toggles
stopping        when a cell needs no more pairs
"""
