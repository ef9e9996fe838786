"""Design of an experiment: what is compared, and in which trials. Pure.

contrasts   pairs of arms to compare, by experimental design
cells       cells, pairs and trials that measure the contrasts
plan        the cells of a run, from what its header stores
"""
