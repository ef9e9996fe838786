"""Removes secrets from everything that is written or displayed."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from agent_core.encoding import encode_json

_SECRET_NAME = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_MIN_LENGTH = 8
"""Characters. A shorter value is not a key, and replacing it would damage ordinary text."""

REPLACEMENT = "[REDACTED]"


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """The values of all variables with a secret's name, such as `..._KEY`."""
    return [environ[name] for name in environ if _SECRET_NAME.search(name)]


def without_keys(
    environ: Mapping[str, str], names: Collection[str], secrets: Iterable[str] = ()
) -> dict[str, str]:
    """`environ` for the tools: without the variables `names` and those that contain a secret."""
    known = [secret for secret in secrets if len(secret) >= _MIN_LENGTH]
    return {
        name: value
        for name, value in environ.items()
        if name not in names and not any(secret in value for secret in known)
    }


class Redactor:
    """Replaces known secrets by `[REDACTED]`. Its `repr` shows none of them."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first, because one key may be a prefix of another. Also stripped, because
        # a quoted header shows a trailing newline of a key as an escape sequence.
        forms = (form for secret in secrets for form in (secret, secret.strip()))
        known = {form for form in forms if len(form) >= _MIN_LENGTH}
        self._secrets = sorted(known, key=lambda secret: (-len(secret), secret))
        self._encoded = [encode_json(secret)[1:-1] for secret in self._secrets]

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], extra: Iterable[str] = ()) -> "Redactor":
        """Knows the values of all variables with a secret's name, such as `..._KEY`."""
        return cls([*secret_values(environ), *extra])

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    @property
    def longest(self) -> int:
        """Characters of the longest secret; 0 if none is known."""
        return len(self._secrets[0]) if self._secrets else 0

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REPLACEMENT)
        return text

    def tree(self, value: Any) -> Any:
        """A copy of JSON-like data with every string redacted, keys included."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.tree(key): self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return value

    def touches(self, encoded: bytes) -> bool:
        """Whether encoded JSON contains a secret. Faster than `tree`, which is then rarely needed.

        JSON escapes each character separately, so a secret has the same bytes inside a longer
        string.
        """
        return any(secret in encoded for secret in self._encoded)
