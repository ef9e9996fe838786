"""Design of an experiment: what is compared, in which trials, and within which limits. Pure.

contrasts   pairs of arms to compare, by experimental design
cells       cells, pairs and trials that measure the contrasts
limits      limits of pairs and seconds
"""
