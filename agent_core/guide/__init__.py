"""The API of the guide *Trae Agent Performance Optimizations*, one module per topic.

The guide imports each topic from the module of the same name in `agent_core`, which exports
these names, too. A session imports nothing from here.
"""
