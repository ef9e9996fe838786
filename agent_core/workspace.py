"""The folder that a session works in."""

from pathlib import Path

from agent_core.errors import ToolError

_MAX_NAME = 255
"""Bytes of a file's name on Linux and macOS."""


class Workspace:
    """Resolves the paths that a model names.

    If `confined`, a path outside the root raises `ToolError`, also through `..` or a
    symbolic link.
    """

    def __init__(self, root: Path, *, confined: bool = True) -> None:
        self.root = root.resolve()
        self.confined = confined

    def resolve(self, path: str) -> Path:
        """The absolute path for `path`, which starts at the root, at `/` or at `~/`."""
        if not path.strip():
            raise ToolError("The path is empty; name a file or folder.")
        for name in path.split("/"):
            if (size := len(name.encode(errors="surrogatepass"))) > _MAX_NAME:
                raise ToolError(f"{name[:20]}... has {size} bytes; a name takes up to {_MAX_NAME}.")
        home = path == "~" or path.startswith("~/")
        try:
            resolved = (self.root / (Path(path).expanduser() if home else path)).resolve()
        # The exception for a link loop or a NUL byte depends on the Python version.
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"{path!r} is not a valid path: {error}") from None
        if self.confined and not resolved.is_relative_to(self.root):
            raise ToolError(f"{path} is outside the workspace {self.root}; use a path inside it.")
        return resolved
