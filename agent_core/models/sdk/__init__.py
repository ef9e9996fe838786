"""Models that use the vendors' SDKs: the baseline of `native_client`.

Each module imports its SDK, so only `agent_core.sdks` imports it, by path. Requests and
replies use the codecs of the wire clients, so both sides give the same transcript.
"""
