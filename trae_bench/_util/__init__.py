"""Helpers without knowledge of benchmarks."""
