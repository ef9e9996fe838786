"""The text of `trae-bench --version`."""

import platform

from trae_bench._util.code_version import code_state, versions


def version_text() -> str:
    """The versions that a bug report needs: trae-bench, Python, platform and packages."""
    packages = dict(versions())
    return "\n".join(
        [
            f"trae-bench {packages.pop('trae-bench')}{_commit()}",
            f"Python {platform.python_version()} ({platform.python_implementation()})",
            platform.platform(),
            ", ".join(f"{name} {number}" for name, number in packages.items()),
        ]
    )


def _commit() -> str:
    """The git commit in parentheses; empty outside a checkout."""
    state = code_state()
    if not state:
        return ""
    changes = ", with uncommitted changes" if state["dirty"] else ""
    return f" (commit {str(state['commit'])[:12]}{changes})"
