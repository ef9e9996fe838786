"""The folder that a session works in, and the guard at its fence."""

from pathlib import Path

from agent_core.errors import ToolError


class Workspace:
    """Resolves the paths that a model names.

    Confined (the default), a path that leads outside the root, through `..` or a
    symbolic link, is refused with `ToolError`.
    """

    def __init__(self, root: Path, *, confined: bool = True) -> None:
        self.root = root.resolve()
        self.confined = confined

    def resolve(self, path: str) -> Path:
        """The absolute path meant by `path`, relative paths taken from the root."""
        try:
            resolved = (self.root / path).resolve()
        # What is raised for a loop of links or a NUL byte depends on the Python version.
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path!r} cannot be a path: {error}") from None
        if self.confined and not resolved.is_relative_to(self.root):
            raise ToolError(f"{path} is outside the workspace {self.root}; use a path inside it.")
        return resolved
