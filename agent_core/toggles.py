"""The toggles, one per optimisation. Only `build.py` reads them."""

from msgspec import Struct


class Toggles(Struct, frozen=True, kw_only=True):
    """Selects the implementation for each optimisation; `True` is the optimised one.

    >>> Toggles.none().with_(lazy_tools=True).enabled()
    ('lazy_tools',)
    """

    parallel_tools: bool = True
    async_file_io: bool = True
    batched_trajectory: bool = True
    connection_pool: bool = True
    lazy_tools: bool = True
    optional_deps: bool = True
    config_cache: bool = True
    native_client: bool = True
    incremental_history: bool = True
    event_shell: bool = True
    shared_tls: bool = True
    prompt_cache: bool = True

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All toggles: the guide's, in its order, then the others."""
        return cls.__struct_fields__

    @classmethod
    def none(cls) -> "Toggles":
        """All optimisations off: the baseline."""
        return cls(**dict.fromkeys(cls.names(), False))

    def with_(self, **changes: bool) -> "Toggles":
        """A copy with some toggles changed. Raises `TypeError` for an unknown name."""
        return type(self)(**{**self.as_dict(), **changes})

    def as_dict(self) -> dict[str, bool]:
        return {name: getattr(self, name) for name in self.names()}

    def enabled(self) -> tuple[str, ...]:
        return tuple(name for name, on in self.as_dict().items() if on)


ABOUT: dict[str, str] = {
    "parallel_tools": "one tool call after another | independent calls at the same time",
    "async_file_io": "file work on the event loop | large files off the loop, atomic replace",
    "batched_trajectory": "the whole trajectory rewritten twice a step | appended in batches",
    "connection_pool": "a new connection for every request (synthetic) | kept-alive connections",
    "lazy_tools": "every tool imported and built at start | each tool at its first execution",
    "optional_deps": "every installed vendor SDK imported at start | only what the provider needs",
    "config_cache": "config parsed and validated at each start | a cache on disk, without secrets",
    "native_client": "the vendor's SDK | the agent's own wire client",
    "incremental_history": "the whole history encoded at each step | each message encoded once",
    "event_shell": "the shell polled every 0.2 s | woken by output",
    "shared_tls": "certificates read for every connection | one shared TLS context",
    "prompt_cache": "requests without cache hints | the end of the prompt marked for the cache",
}
"""One line per toggle: baseline | optimised."""
