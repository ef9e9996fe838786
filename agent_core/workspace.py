"""The folder that a session works in."""

from pathlib import Path

from agent_core.errors import ToolError


class Workspace:
    """Resolves the paths that a model names.

    If `confined`, a path outside the root raises `ToolError`, also through `..` or a
    symbolic link.
    """

    def __init__(self, root: Path, *, confined: bool = True) -> None:
        self.root = root.resolve()
        self.confined = confined

    def resolve(self, path: str) -> Path:
        """The absolute path for `path`. Relative paths start at the root."""
        try:
            resolved = (self.root / path).resolve()
        # The exception for a link loop or a NUL byte depends on the Python version.
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path!r} is not a valid path: {error}") from None
        if self.confined and not resolved.is_relative_to(self.root):
            raise ToolError(f"{path} is outside the workspace {self.root}; use a path inside it.")
        return resolved
