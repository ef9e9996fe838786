"""Environments with the requirements of a subject, and their size on disk."""
