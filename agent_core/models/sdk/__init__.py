"""Models behind the vendors' SDKs: the baseline of `native_client`.

One module for each SDK, imported by path from `agent_core.dynamic_imports` and by nothing
else, because importing one imports its SDK. Requests and replies go through the codecs
of the wire clients, so that a session has the same transcript on either side.
"""
