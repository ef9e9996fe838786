"""Every error that `agent_core` raises deliberately.

    AgentError
    ├── ConfigError               a setting is wrong; names file, field and remedy
    ├── MissingDependencyError    a package is not installed; has the pip command
    ├── ToolError                 a tool cannot do what was asked; the model reads it
    ├── RecordingError            the trajectory cannot be written, e.g. on a full disk
    └── ProviderError             the provider did not return a valid reply
        ├── AuthenticationError   401, 403
        ├── InvalidRequestError   other 4xx; not worth retrying
        │   └── ContextLimitError the conversation is too long for the model
        ├── RateLimitError        429; has `retry_after` if the provider sent it
        ├── OverloadedError       408, 5xx
        ├── ConnectionFailedError no connection, reset, timeout
        ├── MalformedReplyError   the reply violates the protocol
        └── NoProgressError       the model refuses, or its replies are cut or empty

The command line turns each into one sentence and an exit code.
"""


class AgentError(Exception):
    """Base class of all errors here."""


class ConfigError(AgentError):
    """A setting is missing or wrong."""


class MissingDependencyError(AgentError, ImportError):
    """An optional package is needed and not installed."""

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
    """The provider did not return a valid reply."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class AuthenticationError(ProviderError):
    """The provider rejects the API key."""


class InvalidRequestError(ProviderError):
    """The provider rejects the request. A retry does not help."""


class ContextLimitError(InvalidRequestError):
    """The conversation is longer than the model accepts. A shorter one may succeed."""


class RateLimitError(ProviderError):
    """Too many requests."""

    def __init__(self, message: str, *, status: int | None = 429, retry_after: float | None = None):
        self.retry_after = retry_after
        super().__init__(message, status=status)


class OverloadedError(ProviderError):
    """The provider is overloaded or failing. A retry may succeed."""

    def __init__(
        self, message: str, *, status: int | None = None, retry_after: float | None = None
    ):
        self.retry_after = retry_after
        super().__init__(message, status=status)


class ConnectionFailedError(ProviderError):
    """The provider is unreachable, or the connection broke."""


class MalformedReplyError(ProviderError):
    """The provider's reply violates its protocol."""


class NoProgressError(ProviderError):
    """The provider's replies are valid, but the session cannot go on with them."""
