"""The composition root: every optimisation is picked here, and nowhere else.

Each choice is one expression with the optimised body first and the baseline second; the
two stand side by side in their own module.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from agent_core.agent import Agent
from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.config import (
    Overrides,
    ProviderSettings,
    Settings,
    effective_settings,
    is_address,
    split_url,
    suggestion,
)
from agent_core.config_file import location_of
from agent_core.config_sources import CachedConfig, PlainConfig
from agent_core.connections import FreshConnections
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.errors import ConfigError, ToolError
from agent_core.files import BlockingFiles, ThreadedFiles
from agent_core.messages import Outcome
from agent_core.models.history import FullHistory, IncrementalHistory
from agent_core.models.wire import open_model
from agent_core.pooled_connections import PooledConnections
from agent_core.ports import (
    Catalog,
    ConfigSource,
    Connections,
    Dispatch,
    Files,
    Model,
    Recorder,
    ToolContext,
)
from agent_core.providers import PROVIDERS
from agent_core.recorders import Recorders
from agent_core.redaction import Redactor
from agent_core.sdks import import_installed_sdks, load_llm_client
from agent_core.shell import EventShell, PollingShell
from agent_core.toggles import Toggles
from agent_core.tools import TOOLS, find
from agent_core.trajectory_recorder import OptimizedTrajectoryRecorder, TrajectoryRecorder
from agent_core.workspace import Workspace


async def run_task(
    task: str,
    *,
    workspace: Path,
    trajectory: Path | None = None,
    settings: Settings | None = None,
    config: Path | None = None,
    provider: str | None = None,
    model: str | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    max_steps: int | None = None,
    toggles: Toggles | Mapping[str, bool] | None = None,
    scripted_model: Model | None = None,
    listener: Recorder | None = None,
    confined: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Outcome:
    """Works on `task` in the folder `workspace`, and says how it ended.

    Without `settings`, they come from the file `config`, or from the one that
    `TRAE_CONFIG_FILE` names, under those of `environ` (`os.environ` unless given). With
    `settings`, the environment is asked only where `environ` is given. The other
    arguments are over both. `toggles` as a whole is taken as it is; a mapping sets some
    switches, and the settings decide the rest.

    Raises `ConfigError` and `MissingDependencyError`; what goes wrong with the provider or
    the recording is in the outcome.
    """
    if environ is None:
        environ = os.environ if settings is None else {}
    if settings is None:
        settings = load_settings(config, environ, toggles)
    said = Overrides(
        provider=provider, model=model, base_url=base_url, api_key=api_key, max_steps=max_steps
    )
    in_force = effective_settings(settings, environ, said)
    async with open_agent(
        in_force,
        workspace=workspace,
        trajectory=trajectory,
        toggles=effective_toggles(in_force, toggles),
        scripted_model=scripted_model,
        listener=listener,
        confined=confined,
    ) as agent:
        return await agent.run(task)


def load_settings(
    config: Path | None,
    environ: Mapping[str, str],
    toggles: Toggles | Mapping[str, bool] | None = None,
) -> Settings:
    """The settings of the file `config`, or of the one the environment names, or the defaults.

    Raises `ConfigError` and `MissingDependencyError`.
    """
    named = environ.get("TRAE_CONFIG_FILE")
    path = config or (Path(named) if named else None)
    if path is None:
        return Settings()
    # Settings may decide other toggles, so this one is known before there are any.
    known = effective_toggles(Settings(), toggles)
    source: ConfigSource = CachedConfig(environ) if known.config_cache else PlainConfig()
    return source.load(path)


def effective_toggles(settings: Settings, said: Toggles | Mapping[str, bool] | None) -> Toggles:
    """What was said, over what the settings say, over everything on.

    `settings` are those that `effective_settings` gave, so that the environment is in them.
    """
    if isinstance(said, Toggles):
        return said
    chosen = Toggles(
        parallel_tools=settings.model_parameters.parallel_tool_calls,
        lazy_tools=settings.performance_settings.lazy_tool_loading is not False,
    )
    return chosen.with_(**(said or {}))


@asynccontextmanager
async def open_agent(
    settings: Settings,
    *,
    workspace: Path,
    trajectory: Path | None = None,
    toggles: Toggles | None = None,
    scripted_model: Model | None = None,
    listener: Recorder | None = None,
    confined: bool = True,
) -> AsyncIterator[Agent]:
    """An agent with everything it needs, which is closed in reverse order at the end.

    `settings` are those that `effective_settings` gave. A `scripted_model` stays open: whoever
    made it closes it. Raises `ConfigError` and `MissingDependencyError`.
    """
    toggles = toggles or Toggles()
    async with AsyncExitStack() as stack:
        if not toggles.optional_deps:
            import_installed_sdks()
        root = Workspace(workspace, confined=confined)
        files: Files = ThreadedFiles() if toggles.async_file_io else BlockingFiles()
        shell = EventShell if toggles.event_shell else PollingShell
        context = ToolContext(files, lambda: shell(root.root), root)
        catalog = _open_catalog(settings, toggles, context)
        stack.push_async_callback(catalog.close)
        dispatch: Dispatch = ParallelDispatch() if toggles.parallel_tools else SequentialDispatch()
        model = scripted_model or _open_model(settings, toggles, stack)
        recorder = _recorder(settings, toggles, trajectory)
        yield Agent(
            model,
            catalog,
            dispatch,
            Recorders(*(each for each in (recorder, listener) if each is not None)),
            provider=settings.default_provider,
            model_name=settings.model_parameters.model,
            max_steps=settings.max_steps,
        )


def _open_catalog(settings: Settings, toggles: Toggles, context: ToolContext) -> Catalog:
    try:
        return (LazyCatalog if toggles.lazy_tools else EagerCatalog)(context, settings.tools)
    except ToolError as error:
        raise ConfigError(f"tools: {error}") from None


def _open_model(settings: Settings, toggles: Toggles, stack: AsyncExitStack) -> Model:
    """The model of the default provider; the stack closes it, and what it stands on."""
    kind, entry = settings.provider_kind, _complete(settings)
    if not toggles.native_client:
        # An SDK encodes the whole history by itself, so `incremental_history` has no say.
        client = load_llm_client(kind, entry, reuse_connections=toggles.connection_pool)
        stack.push_async_callback(client.close)
        return client
    history = IncrementalHistory if toggles.incremental_history else FullHistory
    size = settings.performance_settings.connection_pool_size
    retries, shared_tls = entry.max_retries, toggles.shared_tls
    connections: Connections = (
        PooledConnections(max_connections=size, max_retries=retries, shared_tls=shared_tls)
        if toggles.connection_pool
        else FreshConnections(max_retries=retries, shared_tls=shared_tls)
    )
    stack.push_async_callback(connections.close)
    return open_model(kind, entry, connections, history=history)


def _complete(settings: Settings) -> ProviderSettings:
    """The default provider's entry. Raises `ConfigError` where a model or a key is missing, or
    where address or key cannot be used."""
    name, entry = settings.default_provider, settings.model_parameters
    if not entry.model:
        raise ConfigError(
            f"No model is named for {name}; name one with --model (model= in Python), or set"
            f" model_providers.{name}.model."
        )
    if entry.base_url and not is_address(entry.base_url):
        raise ConfigError(
            f"The base_url of {name} must begin with http:// or https:// and name a host; a port"
            " is a number up to 65535."
        )
    if entry.base_url and "@" in split_url(entry.base_url).netloc:
        raise ConfigError(
            f"The base_url of {name} holds a user name, and none would be sent; take it out."
        )
    if not (entry.api_key.isascii() and entry.api_key.isprintable()):
        raise ConfigError(
            f"The API key of {name} holds a line break or another character that no HTTP header"
            " can; set it anew."
        )
    known = PROVIDERS[settings.provider_kind]
    # A server of one's own, at an address of its own, may want no key.
    if not entry.api_key and not entry.base_url and settings.provider_kind != "ollama":
        raise ConfigError(
            f"No API key for {name}; set the environment variable {known.key_env[0]} or"
            f" model_providers.{name}.api_key."
        )
    return entry


def check(settings: Settings, path: Path | None = None, *, said: str | None = None) -> None:
    """Raises `ConfigError` for settings that no session can begin with.

    A model and a key may be missing: a later command line or environment may have them. See
    `check_known_names` for `path` and `said`.
    """
    check_known_names(settings, path, said=said)
    entry = settings.model_parameters
    known = replace(entry, model=entry.model or "unnamed", api_key=entry.api_key or "unknown")
    providers = {**settings.model_providers, settings.default_provider: known}
    kind, entry = settings.provider_kind, _complete(replace(settings, model_providers=providers))
    open_model(kind, entry, FreshConnections())


def check_known_names(
    settings: Settings, path: Path | None = None, *, said: str | None = None
) -> None:
    """Raises `ConfigError` for a tool, or for a provider in force, that there is not.

    `path` is the file that the settings are from, and `said` the provider that was chosen over
    it. Entries that are not in force may be of any provider.
    """
    name = settings.default_provider
    try:
        settings.provider_kind  # noqa: B018 - only to hear what is wrong with it
    except ConfigError as error:
        ways = [("default_provider",), ("model_providers", name)]
        if settings.model_parameters.provider:
            ways = [("model_providers", name, "provider")]
        elif said:
            raise
        raise ConfigError(f"{location_of(path, *ways) if path else ''}{error}") from None
    for name in settings.tools:
        try:
            find(TOOLS, name)
        except ToolError as error:
            ways = [("tools",), ("agents", "trae_agent", "tools")]
            place = location_of(path, *ways) if path else "tools: "
            raise ConfigError(f"{place}{error}{suggestion(name, TOOLS)}") from None


def redactor_for(settings: Settings) -> Redactor:
    """Knows the keys of `settings`, and the secrets of this process's environment.

    Tools inherit the environment, and may show what is in it.
    """
    entries = settings.model_providers.values()
    return Redactor.of_environment(
        os.environ, [each for entry in entries for each in entry.secrets]
    )


def _recorder(settings: Settings, toggles: Toggles, trajectory: Path | None) -> Recorder | None:
    if trajectory is None:
        return None
    redactor, performance = redactor_for(settings), settings.performance_settings
    kept = performance.max_trajectory_interactions
    if not toggles.batched_trajectory:
        return TrajectoryRecorder(trajectory, max_interactions=kept, redactor=redactor)
    return OptimizedTrajectoryRecorder(
        trajectory,
        batch_size=performance.trajectory_batch_size,
        max_interactions=kept,
        background_io=performance.trajectory_background_io,
        redactor=redactor,
    )
