"""The import path of the guide. The code is in the module of this name in `guide/`."""

from agent_core.catalogs import LazyToolLoader, LazyToolProxy
from agent_core.guide.lazy_tools import OptimizedToolManager

__all__ = ["LazyToolLoader", "LazyToolProxy", "OptimizedToolManager"]
