"""What the providers' finish reasons mean."""

from msgspec.structs import replace

from agent_core.messages import Ending, Message, Reply, Usage

ENDINGS: dict[str, Ending] = {
    # Chat Completions, Ollama; "max_tokens" is also Anthropic's.
    "length": "limit",
    "max_tokens": "limit",
    "content_filter": "refused",
    "sensitive": "refused",
    # Responses
    "max_output_tokens": "limit",
    # Messages
    "refusal": "refused",
    "model_context_window_exceeded": "window",
    # Gemini
    "MAX_TOKENS": "limit",
    "SAFETY": "refused",
    "RECITATION": "refused",
    "LANGUAGE": "refused",
    "BLOCKLIST": "refused",
    "PROHIBITED_CONTENT": "refused",
    "SPII": "refused",
    "MALFORMED_FUNCTION_CALL": "unreadable",
    "MALFORMED_RESPONSE": "unreadable",
    "UNEXPECTED_TOOL_CALL": "unreadable",
    "TOO_MANY_TOOL_CALLS": "unreadable",
}
"""Finish reasons of all protocols. They do not contradict each other. A reason that is not here
means "complete".
"""


def ended(
    message: Message,
    usage: Usage,
    finish_reason: str | None,
    model: str | None,
    explanation: str | None = None,
) -> Reply:
    """A reply whose ending follows from `finish_reason`."""
    reason = finish_reason or ""
    ending = ENDINGS.get(reason, "complete")
    return Reply(message, usage, reason, model or "", ending, explanation or "")


def refused(reply: Reply, text: str) -> Reply:
    """`reply` as a refusal in the words `text`, unless it has calls."""
    if not text or reply.message.calls:
        return reply
    return replace(reply, ending="refused", explanation=reply.explanation or text)
