"""The records of an experiment. Frozen, typed, without behaviour.

Scenario x toggles -> Arm -> Contrast -> Cell -> Trial -> Sample -> Estimate -> Comparison
"""
