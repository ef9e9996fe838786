"""Renders runs as text, HTML, plots and other tools' formats. The caller prints or writes it."""
