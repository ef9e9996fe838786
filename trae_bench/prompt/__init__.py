"""What the requests of a session ask the model to read, and how much of it repeats.

A provider caches the beginning of a prompt, so an agent that only appends to its prompt is
several times cheaper than one that changes an early part. The scripted provider keeps every
request, so this package can count what a real provider would find in its cache.
"""

from trae_bench.prompt.bill import Accounting, SessionMeter
from trae_bench.prompt.parts import Part, Prompt
from trae_bench.prompt.prefixes import PrefixTracker
from trae_bench.prompt.reading import PromptReader

__all__ = ["Accounting", "Part", "PrefixTracker", "Prompt", "PromptReader", "SessionMeter"]
