"""Builds an agent from settings and toggles. Only this module reads toggles.

Each choice is one expression, the optimised implementation first and the baseline second.
"""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from agent_core.agent import Agent, Objection, no_objection
from agent_core.catalogs import EagerCatalog, LazyCatalog
from agent_core.config import (
    McpServer,
    Overrides,
    ProviderSettings,
    Settings,
    effective_settings,
    is_address,
    key_variables,
    split_url,
    suggestion,
)
from agent_core.config_file import location_of
from agent_core.config_sources import CachedConfig, PlainConfig
from agent_core.connections import FreshConnections
from agent_core.dispatch import ParallelDispatch, SequentialDispatch
from agent_core.errors import ConfigError, MissingDependencyError, ToolError
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
    View,
    ignore_result,
)
from agent_core.providers import PROVIDERS
from agent_core.recorders import Recorders, ToleratedRecorder
from agent_core.redaction import Redactor, secret_values, without_keys
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
    view: View | None = None,
    objection: Objection | None = None,
    redactor: Redactor | None = None,
    confined: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Outcome:
    """Works on `task` in the folder `workspace` and returns the outcome.

    Without `settings`, they come from the file `config` or the one named by
    `TRAE_CONFIG_FILE`, and `environ` (default `os.environ`) overrides them. With `settings`,
    only an explicit `environ` overrides them. The other arguments override both. A `Toggles`
    object is used as it is; a mapping sets some toggles, and the settings decide the others.
    `redactor` defaults to `redactor_for` the settings. `objection` can refuse `task_done`.

    Raises `ConfigError` and `MissingDependencyError`. Failures of the provider or the
    recording are in the outcome.
    """
    if environ is None:
        environ = os.environ if settings is None else {}
    if settings is None:
        settings = load_settings(config, environ, toggles)
    overrides = Overrides(
        provider=provider, model=model, base_url=base_url, api_key=api_key, max_steps=max_steps
    )
    in_force = effective_settings(settings, environ, overrides)
    async with open_agent(
        in_force,
        workspace=workspace,
        trajectory=trajectory,
        toggles=effective_toggles(in_force, toggles),
        scripted_model=scripted_model,
        listener=listener,
        view=view,
        objection=objection,
        redactor=redactor,
        confined=confined,
    ) as agent:
        return await agent.run(task)


def load_settings(
    config: Path | None,
    environ: Mapping[str, str],
    toggles: Toggles | Mapping[str, bool] | None = None,
) -> Settings:
    """The settings of `config`, or of the file that the environment names, or the defaults.

    Raises `ConfigError` and `MissingDependencyError`.
    """
    named = environ.get("TRAE_CONFIG_FILE")
    path = config or (Path(named) if named else None)
    if path is None:
        return Settings()
    # Settings can change other toggles, but not the one that decides how to load them.
    known = effective_toggles(Settings(), toggles)
    source: ConfigSource = CachedConfig(environ) if known.config_cache else PlainConfig()
    return source.load(path)


def effective_toggles(
    settings: Settings, requested: Toggles | Mapping[str, bool] | None
) -> Toggles:
    """`requested` over the settings over the defaults, which are all on.

    `settings` is the result of `effective_settings`, which includes the environment.
    """
    if isinstance(requested, Toggles):
        return requested
    chosen = Toggles(
        parallel_tools=settings.model_parameters.parallel_tool_calls,
        lazy_tools=settings.performance_settings.lazy_tool_loading is not False,
    )
    return chosen.with_(**(requested or {}))


@asynccontextmanager
async def open_agent(
    settings: Settings,
    *,
    workspace: Path,
    trajectory: Path | None = None,
    toggles: Toggles | None = None,
    scripted_model: Model | None = None,
    listener: Recorder | None = None,
    view: View | None = None,
    objection: Objection | None = None,
    redactor: Redactor | None = None,
    confined: bool = True,
) -> AsyncIterator[Agent]:
    """Opens an agent and its parts. They are closed in reverse order on exit.

    `settings` is the result of `effective_settings`. The caller closes a `scripted_model`.
    Raises `ConfigError` and `MissingDependencyError`.
    """
    toggles = toggles or Toggles()
    async with AsyncExitStack() as stack:
        if not toggles.optional_deps:
            import_installed_sdks()
        root = Workspace(workspace, confined=confined)
        files: Files = ThreadedFiles() if toggles.async_file_io else BlockingFiles()
        shell = EventShell if toggles.event_shell else PollingShell
        environ = cache(lambda: tools_environment(settings))  # for a shell only
        context = ToolContext(files, lambda: shell(root.root, environ()), root)
        catalog = _open_catalog(settings, toggles, context)
        stack.push_async_callback(catalog.close)
        if settings.mcp_servers:
            catalog = await stack.enter_async_context(
                _with_servers(catalog, settings.mcp_servers, root.root)
            )
        limit = settings.performance_settings.max_parallel_tools
        dispatch: Dispatch = (
            ParallelDispatch(limit) if toggles.parallel_tools else SequentialDispatch()
        )
        model = scripted_model or _open_model(settings, toggles, stack, view)
        recorder = _recorder(settings, toggles, trajectory, redactor or redactor_for(settings))
        yield Agent(
            model,
            catalog,
            dispatch,
            Recorders(*(r for r in (recorder, listener, view) if r is not None)),
            provider=settings.default_provider,
            model_name=settings.model_parameters.model,
            max_steps=settings.max_steps,
            context_window=_context_window(settings),
            objection=objection or no_objection,
            on_result=ignore_result if view is None else view.result,
            workspace=root.root,
        )


def _context_window(settings: Settings) -> int | None:
    """The tokens that are left for the conversation. Raises `ConfigError`."""
    name, entry = settings.default_provider, settings.model_parameters
    if entry.context_window is None:
        return None
    if entry.context_window <= entry.max_tokens:
        raise ConfigError(
            f"The context_window of {name} is {entry.context_window}; it must be larger than"
            f" max_tokens ({entry.max_tokens}), because it includes the reply."
        )
    return entry.context_window - entry.max_tokens


def _open_catalog(settings: Settings, toggles: Toggles, context: ToolContext) -> Catalog:
    try:
        return (LazyCatalog if toggles.lazy_tools else EagerCatalog)(context, settings.tools)
    except ToolError as error:
        raise ConfigError(f"tools: {error}") from None


def _with_servers(
    catalog: Catalog, servers: Mapping[str, McpServer], folder: Path
) -> AbstractAsyncContextManager[Catalog]:
    try:
        from agent_core.mcp_servers import with_servers  # slow to import
    except ModuleNotFoundError:
        install = "pip install 'trae-bench[mcp]'"
        raise MissingDependencyError("An MCP server", "mcp", install) from None
    return with_servers(catalog, servers, folder)


def _open_model(
    settings: Settings, toggles: Toggles, stack: AsyncExitStack, view: View | None
) -> Model:
    """The model of the default provider. `stack` closes the model and its connections.

    A vendor's SDK shows no streamed text.
    """
    kind, entry = settings.provider_kind, _complete(settings)
    if not toggles.native_client:
        # An SDK encodes the whole history itself, so `incremental_history` has no effect.
        client = load_llm_client(
            kind,
            entry,
            reuse_connections=toggles.connection_pool,
            prompt_cache=toggles.prompt_cache,
        )
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
    return open_model(
        kind,
        entry,
        connections,
        history=history,
        prompt_cache=toggles.prompt_cache,
        on_text=None if view is None else view.text,
    )


def _complete(settings: Settings) -> ProviderSettings:
    """The default provider's entry.

    Raises `ConfigError` if the model or the key is missing, or if the address or the key is
    invalid.
    """
    name, entry = settings.default_provider, settings.model_parameters
    if not entry.model:
        raise ConfigError(
            f"No model is set for {name}; use --model (model= in Python), or set"
            f" model_providers.{name}.model."
        )
    if entry.base_url and not is_address(entry.base_url):
        raise ConfigError(
            f"The base_url of {name} must begin with http:// or https:// and name a host; a port"
            " is a number up to 65535."
        )
    if entry.base_url and "@" in split_url(entry.base_url).netloc:
        raise ConfigError(
            f"The base_url of {name} contains a user name, which is never sent; remove it."
        )
    if not (entry.api_key.isascii() and entry.api_key.isprintable()):
        raise ConfigError(
            f"The API key of {name} contains a line break or another character that an HTTP"
            " header cannot contain; set it again."
        )
    known = PROVIDERS[settings.provider_kind]
    # A server at a custom address may need no key.
    if not entry.api_key and not entry.base_url and settings.provider_kind != "ollama":
        raise ConfigError(
            f"No API key for {name}; set the environment variable {known.key_env[0]} or"
            f" model_providers.{name}.api_key."
        )
    return entry


def check(settings: Settings, path: Path | None = None, *, requested: str | None = None) -> None:
    """Raises `ConfigError` if no session can start with these settings.

    The model and the key may be missing, because the command line or the environment can
    still supply them. See `check_known_names` for the other arguments.
    """
    check_known_names(settings, path, requested=requested)
    entry = settings.model_parameters
    known = replace(entry, model=entry.model or "unnamed", api_key=entry.api_key or "unknown")
    providers = {**settings.model_providers, settings.default_provider: known}
    kind, entry = settings.provider_kind, _complete(replace(settings, model_providers=providers))
    open_model(kind, entry, FreshConnections())


def check_known_names(
    settings: Settings, path: Path | None = None, *, requested: str | None = None
) -> None:
    """Raises `ConfigError` for an unknown tool or an unknown default provider.

    `path` is the file of the settings. `requested` is the provider that replaces the file's
    default, if any. Entries other than the default provider's are not checked.
    """
    name = settings.default_provider
    try:
        settings.provider_kind  # noqa: B018 - raises for an unknown provider
    except ConfigError as error:
        candidates = [("default_provider",), ("model_providers", name)]
        if settings.model_parameters.provider:
            candidates = [("model_providers", name, "provider")]
        elif requested:
            raise
        location = location_of(path, *candidates) if path else ""
        raise ConfigError(f"{location}{error}") from None
    for name in settings.tools:
        try:
            find(TOOLS, name)
        except ToolError as error:
            candidates = [("tools",), ("agents", "trae_agent", "tools")]
            location = location_of(path, *candidates) if path else "tools: "
            raise ConfigError(f"{location}{error}{suggestion(name, TOOLS)}") from None


def redactor_for(settings: Settings, environ: Mapping[str, str] | None = None) -> Redactor:
    """A redactor for the secrets in `settings` and in `environ`, by default the process's.

    Tools inherit the environment and may print it.
    """
    secrets = _secrets(settings)
    for server in settings.mcp_servers.values():
        secrets += [*secret_values(server.env), *server.headers.values()]
        # The token of `Bearer TOKEN` is a secret without its scheme too.
        secrets += [value.rpartition(" ")[2] for value in server.headers.values()]
    return Redactor.of_environment(os.environ if environ is None else environ, secrets)


def tools_environment(settings: Settings) -> dict[str, str]:
    """The process environment without the providers' keys, which no tool needs."""
    return without_keys(os.environ, key_variables(settings), _secrets(settings))


def _secrets(settings: Settings) -> list[str]:
    return [secret for entry in settings.model_providers.values() for secret in entry.secrets]


def _recorder(
    settings: Settings, toggles: Toggles, trajectory: Path | None, redactor: Redactor
) -> Recorder | None:
    if trajectory is None:
        return None
    performance = settings.performance_settings
    max_interactions = performance.max_trajectory_interactions
    if not toggles.batched_trajectory:
        recorder: Recorder = TrajectoryRecorder(
            trajectory, max_interactions=max_interactions, redactor=redactor
        )
    else:
        recorder = OptimizedTrajectoryRecorder(
            trajectory,
            batch_size=performance.trajectory_batch_size,
            max_interactions=max_interactions,
            background_io=performance.trajectory_background_io,
            redactor=redactor,
        )
    return ToleratedRecorder(recorder)
