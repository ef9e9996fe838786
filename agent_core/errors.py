"""Everything that `agent_core` raises on purpose.

    AgentError
    ├── ConfigError               a setting is wrong; names file, field and remedy
    ├── MissingDependencyError    an SDK is not installed; carries the pip line
    ├── ToolError                 a tool cannot do what was asked; the model is told
    ├── RecordingError            the trajectory cannot be written (a full disk, say)
    └── ProviderError             the model did not answer as it should
        ├── AuthenticationError   401, 403
        ├── InvalidRequestError   other 4xx: repeating will not help
        ├── RateLimitError        429; `retry_after` where the provider named it
        ├── OverloadedError       5xx, 529
        ├── ConnectionFailedError no connection, reset, timeout
        └── MalformedReplyError   the reply is not what the protocol promises

The command line turns each into one sentence and an exit code; nothing else prints.
"""


class AgentError(Exception):
    """Base of the tree."""


class ConfigError(AgentError):
    """A setting is missing or wrong."""


class MissingDependencyError(AgentError, ImportError):
    """A provider's SDK was asked for and is not installed."""

    def __init__(self, provider: str, package: str, install_command: str) -> None:
        self.provider = provider
        self.package = package
        self.install_command = install_command
        super().__init__(
            f"{provider} needs the package '{package}', which is not installed. "
            f"Install it with: {install_command}"
        )


class ToolError(AgentError):
    """A tool cannot do what was asked."""


class RecordingError(AgentError):
    """The trajectory cannot be written."""


class ProviderError(AgentError):
    """The model did not answer as it should."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class AuthenticationError(ProviderError):
    """The provider does not accept the key."""


class InvalidRequestError(ProviderError):
    """The provider rejects the request; sending it again will not help."""


class RateLimitError(ProviderError):
    """Too many requests."""

    def __init__(self, message: str, *, status: int | None = 429, retry_after: float | None = None):
        self.retry_after = retry_after
        super().__init__(message, status=status)


class OverloadedError(ProviderError):
    """The provider is ill or overloaded; a later try may succeed."""

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ):
        self.retry_after = retry_after
        super().__init__(message, status=status)


class ConnectionFailedError(ProviderError):
    """The provider could not be reached, or the connection broke."""


class MalformedReplyError(ProviderError):
    """The provider's reply is not what its protocol promises."""
