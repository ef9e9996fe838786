"""Keeps secrets out of everything that is written or shown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from agent_core.encoding import encode_json

_SECRET_NAME = re.compile(r"(^|_)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_MIN_LENGTH = 8
"""Characters. A shorter "secret" is no key, and replacing it would maim ordinary text."""

REPLACEMENT = "[REDACTED]"


class Redactor:
    """Replaces known secrets by `[REDACTED]`. Its `repr` shows none."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: of two keys one may be the beginning of the other.
        # Stripped too: a quoted header shows a key's last newline as a backslash and a letter.
        forms = (form for secret in secrets for form in (secret, secret.strip()))
        known = {form for form in forms if len(form) >= _MIN_LENGTH}
        self._secrets = sorted(known, key=lambda secret: (-len(secret), secret))
        self._encoded = [encode_json(secret)[1:-1] for secret in self._secrets]

    @classmethod
    def of_environment(cls, environ: Mapping[str, str], also: Iterable[str] = ()) -> "Redactor":
        """Knows the values of all variables that are named like a secret (`..._KEY`, ...)."""
        values = (value for name, value in environ.items() if _SECRET_NAME.search(name))
        return cls([*values, *also])

    def __repr__(self) -> str:
        return f"Redactor({len(self._secrets)} secrets)"

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REPLACEMENT)
        return text

    def tree(self, value: Any) -> Any:
        """A copy of JSON-like data, redacted in every string, also in keys."""
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
        """Whether JSON bytes hold a secret. Quick, so that `tree` is walked only then.

        JSON escapes character by character, so a secret inside a longer string has the
        bytes that it has alone.
        """
        return any(secret in encoded for secret in self._encoded)
