"""Reports as text: terminal tables, Markdown, JUnit, CI annotations, explanations."""
