"""Recorded sessions of agents, read as scenarios."""
