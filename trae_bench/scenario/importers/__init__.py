"""Importers that convert recorded agent sessions to scenarios."""
