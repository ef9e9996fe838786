"""Wire protocols: the body of each scripted reply, complete or streamed.

Each module implements one protocol for `codec.Codec`: `complete` returns the JSON object that
the service sends, detailed enough for the vendor's own SDK; `stream` yields the same reply as
events, with the same ids, token counts and finish reasons. To add a protocol, write a module,
add it to `CODECS` and extend `scenario.Protocol`.
"""

import msgspec

from trae_bench.provider.protocols.anthropic_messages import ANTHROPIC_MESSAGES
from trae_bench.provider.protocols.codec import Codec, NumberedTurn
from trae_bench.provider.protocols.gemini import GEMINI
from trae_bench.provider.protocols.ollama_chat import OLLAMA_CHAT
from trae_bench.provider.protocols.openai_chat import OPENAI_CHAT
from trae_bench.provider.protocols.openai_responses import OPENAI_RESPONSES
from trae_bench.provider.script import Script
from trae_bench.scenario import Protocol

CODECS: dict[Protocol, Codec] = {
    "openai_chat": OPENAI_CHAT,
    "openai_responses": OPENAI_RESPONSES,
    "anthropic_messages": ANTHROPIC_MESSAGES,
    "gemini": GEMINI,
    "ollama_chat": OLLAMA_CHAT,
}


def encode_turns(script: Script, protocol: Protocol | None = None) -> list[bytes]:
    """Return the complete body of each reply, in order. Default: the script's protocol."""
    codec = CODECS[protocol or script.protocol]
    return [
        msgspec.json.encode(codec.complete(NumberedTurn(turn, number)))
        for number, turn in enumerate(script.turns, 1)
    ]


def stream_turns(script: Script, protocol: Protocol | None = None) -> list[list[bytes]]:
    """Return the events of each streamed reply, as bytes of its body.

    Default: the script's protocol.
    """
    size = script.conditions.chunk_characters

    def split(text: str) -> list[str]:
        return [text[start : start + size] for start in range(0, len(text), size)]

    codec = CODECS[protocol or script.protocol]
    return [
        list(codec.stream(NumberedTurn(turn, number), split))
        for number, turn in enumerate(script.turns, 1)
    ]


def encode_error(protocol: Protocol, status: int) -> bytes:
    """Return the body of an error reply in the protocol's format."""
    message = f"scripted fault: status {status}"
    return msgspec.json.encode(CODECS[protocol].error(status, message))
