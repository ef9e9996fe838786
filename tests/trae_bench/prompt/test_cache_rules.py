"""The rules of each provider, on cases counted by hand and on random sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trae_bench.model.sample import CacheUse
from trae_bench.prompt.cache_rules import PromptCache
from trae_bench.prompt.parts import CacheMark, Part, Role
from trae_bench.prompt.tokens import TokenCounter

ONE_PER_BYTE = TokenCounter("a token a byte", lambda part: len(part.text), len)
SONNET, HAIKU = "claude-sonnet-5", "claude-haiku-4-5"
MODELS = (
    ("anthropic_messages", SONNET),
    ("openai_chat", "gpt-6.1-sol"),
    ("openai_chat", "gpt-5.5"),
    ("openai_responses", "gpt-4o"),
    ("gemini", "gemini-2.5-pro"),
    ("ollama_chat", "llama"),
)


def part(text: str, size: int = 0, mark: CacheMark = "", role: Role = "user") -> Part:
    """Return a part of `size` bytes that begins with `text`."""
    return Part("", text.ljust(size, ".").encode(), role, mark)


class Session:
    """Sends prompts to one cache."""

    def __init__(self, protocol: str, model: str = "") -> None:
        self._cache = PromptCache(protocol, model, ONE_PER_BYTE)
        self.now = 1000.0

    def send(self, *parts: Part, after: float = 1.0) -> CacheUse:
        self.now += after
        return self._cache.add(self.now, parts)


# -- Anthropic


def test_claude_reads_what_a_breakpoint_wrote() -> None:
    session = Session("anthropic_messages", SONNET)
    tools, task = part("tools", 2000, "5m", ""), part("task", 300, "5m")
    assert session.send(tools, task) == CacheUse(2300, 0, 2300, 0, 0)
    later = (part("task", 300), part("call", 50, role="assistant"), part("result", 150, "5m"))
    assert session.send(tools, *later) == CacheUse(2500, 2300, 200, 0, 2300)


def test_claude_without_a_breakpoint_caches_nothing() -> None:
    session = Session("anthropic_messages", SONNET)
    session.send(part("task", 5000))
    assert session.send(part("task", 5000), part("more", 10)) == CacheUse(5010, 0, 0, 0, 5000)


@pytest.mark.parametrize(
    ("model", "minimum"),
    [
        (SONNET, 1024),
        (HAIKU, 4096),
        ("claude-haiku-4-5-20251001", 4096),
        ("claude-opus-4-6", 4096),
        ("claude-opus-4-7", 2048),
        ("claude-opus-4-8", 1024),
        ("claude-opus-5", 512),
        ("claude-sonnet-5-5", 512),
        ("anthropic/claude-sonnet-4.5", 1024),
        ("scripted", 1024),
    ],
)
def test_claude_caches_from_the_minimum_of_the_model_on(model: str, minimum: int) -> None:
    for size, written in ((minimum - 1, 0), (minimum, minimum)):
        session = Session("anthropic_messages", model)
        first = session.send(part("task", size, "5m"))
        assert first.written == written
        assert session.send(part("task", size, "5m")).cached == written


@pytest.mark.parametrize(("blocks", "cached"), [(19, 2000), (20, 0)])
def test_claude_looks_back_over_twenty_blocks(blocks: int, cached: int) -> None:
    session = Session("anthropic_messages", SONNET)
    session.send(part("task", 2000, "5m"))
    more = [part(str(n), 10) for n in range(blocks - 1)]
    found = session.send(part("task", 2000), *more, part("last", 10, "5m"))
    assert found.cached == cached
    assert found.cacheable == 2000


@pytest.mark.parametrize(("mark", "lifetime"), [("5m", 300.0), ("1h", 3600.0)])
def test_claude_forgets_after_the_lifetime(mark: CacheMark, lifetime: float) -> None:
    for pause, cached in ((lifetime, 2000), (lifetime + 1, 0)):
        session = Session("anthropic_messages", SONNET)
        session.send(part("task", 2000, mark))
        assert session.send(part("task", 2000, mark), after=pause).cached == cached


def test_a_read_starts_the_lifetime_anew() -> None:
    session = Session("anthropic_messages", SONNET)
    task = part("task", 2000, "5m")
    session.send(task)
    assert [session.send(task, after=200.0).cached for _ in range(5)] == [2000] * 5


def test_an_hour_is_billed_up_to_its_last_breakpoint() -> None:
    session = Session("anthropic_messages", SONNET)
    tools, system, task = part("t", 1500, "1h", ""), part("s", 500, "1h"), part("task", 300, "5m")
    assert session.send(tools, system, task) == CacheUse(2300, 0, 300, 2000, 0)


def test_only_the_last_four_breakpoints_count() -> None:
    session = Session("anthropic_messages", SONNET)
    session.send(*(part(str(n), 2000, "5m") for n in range(5)))
    # The entry at the end of the second part is the first one.
    assert session.send(part("0", 2000, "5m")).cached == 0
    assert session.send(part("0", 2000), part("1", 2000, "5m")).cached == 4000


# -- OpenAI


def test_new_openai_models_write_up_to_the_newest_message() -> None:
    session = Session("openai_chat", "gpt-6.1-sol")
    system, task = part("s", 1500, role="system"), part("task", 300)
    call, result = part("call", 50, role="assistant"), part("result", 150, role="tool")
    assert session.send(system, task) == CacheUse(1800, 0, 1800, 0, 0)
    assert session.send(system, task, call, result) == CacheUse(2000, 1800, 200, 0, 1800)
    # Both entries are alive; the longer one is read.
    last = session.send(system, task, call, result, call, result)
    assert last == CacheUse(2200, 2000, 200, 0, 2000)


def test_the_first_system_messages_end_an_entry() -> None:
    session = Session("openai_chat", "gpt-6.1-sol")
    system = [part(text, 1000, role="system") for text in ("one", "two")]
    assert session.send(*system).written == 2000
    assert session.send(*system, part("task", 10)).cached == 2000
    # A later one does not.
    later = part("later", 500, role="system")
    assert session.send(*system, part("task", 10), later).written == 0


def test_new_openai_models_do_not_read_within_a_message() -> None:
    session = Session("openai_chat", "gpt-5.6-luna")
    system = part("s", 5000, role="system")
    session.send(system, part("at 10:00:01", 100))
    assert session.send(system, part("at 10:00:02", 100)) == CacheUse(5100, 0, 5100, 0, 5010)


@pytest.mark.parametrize(("messages", "cached"), [(20, 2000), (21, 0)])
def test_new_openai_models_look_back_over_twenty_messages(messages: int, cached: int) -> None:
    session = Session("openai_responses")
    session.send(part("task", 2000))
    more = [part(str(n), 10) for n in range(messages)]
    assert session.send(part("task", 2000), *more).cached == cached


def test_a_group_of_tool_results_is_one_message() -> None:
    session = Session("openai_chat")
    task = part("task", 2000)
    session.send(task)
    results = [part(str(n), 10, role="tool") for n in range(50)]
    assert session.send(task, part("calls", 10, role="assistant"), *results).cached == 2000


@pytest.mark.parametrize(("pause", "cached"), [(1800.0, 2000), (1801.0, 0)])
def test_new_openai_models_forget_after_half_an_hour(pause: float, cached: int) -> None:
    session = Session("openai_chat")
    session.send(part("task", 2000))
    assert session.send(part("task", 2000), after=pause).cached == cached


@pytest.mark.parametrize(
    ("model", "size", "cached"),
    [
        ("gpt-4o", 1023, 0),
        ("gpt-4o", 1024, 1024),
        ("gpt-4o", 1151, 1024),
        ("gpt-5", 1152, 1152),
        ("gpt-5-mini", 1152, 1152),
        ("gpt-5.4", 1300, 1280),
        ("o3", 1300, 1280),
        ("gpt-5.5", 2047, 0),
        ("gpt-5.5", 5000, 4096),
    ],
)
def test_old_openai_models_read_in_steps(model: str, size: int, cached: int) -> None:
    session = Session("openai_chat", model)
    session.send(part("", size), part("a", 10))
    found = session.send(part("", size), part("b", 10))
    assert (found.cached, found.written) == (cached, 0)


# -- Gemini, Ollama


def test_gemini_reads_the_common_beginning_from_the_minimum_on() -> None:
    for model, size, cached in (
        ("gemini-2.5-flash", 2047, 0),
        ("gemini-2.5-flash", 2048, 2048),
        ("gemini-3.8-flash", 4095, 0),
        ("gemini-3.8-flash", 4099, 4099),
    ):
        session = Session("gemini", model)
        session.send(part("", size), part("a", 10))
        assert session.send(part("", size), part("b", 10)) == CacheUse(
            size + 10, cached, 0, 0, cached
        )


def test_ollama_continues_the_common_beginning() -> None:
    session = Session("ollama_chat")
    session.send(part("one"), part("two a"))
    assert session.send(part("one"), part("two b")) == CacheUse(8, 7, 0, 0, 7)
    assert session.send(part("one"), after=301.0).cached == 0


# -- all of them

texts = st.sampled_from(["a", "b" * 700, "c" * 1300, "b" * 650 + "x", "d" * 5000])
roles = st.sampled_from(["", "system", "user", "assistant", "tool"])
marks = st.sampled_from(["", "", "", "5m", "1h"])
parts = st.builds(lambda t, r, m: Part("", t.encode(), r, m), texts, roles, marks)
prompts = st.lists(parts, min_size=1, max_size=8)
pauses = st.sampled_from([0.0, 1.0, 290.0, 400.0, 2000.0, 4000.0])
models = st.sampled_from(MODELS)


@given(models, st.lists(st.tuples(pauses, prompts), max_size=8))
def test_every_token_has_one_price(
    model: tuple[str, str], sent: list[tuple[float, list[Part]]]
) -> None:
    session = Session(*model)
    for number, (pause, prompt) in enumerate(sent):
        found = session.send(*prompt, after=pause)
        assert found.input == sum(len(one.text) for one in prompt)
        assert min(found.cached, found.written, found.written_1h) >= 0
        assert found.cached + found.written + found.written_1h <= found.input
        assert found.cached <= found.cacheable <= found.input
        if number == 0:
            assert found.cached == found.cacheable == 0


@given(models, prompts, st.lists(prompts, max_size=6))
def test_a_prompt_that_only_grows_reads_ever_more(
    model: tuple[str, str], first: list[Part], more: list[list[Part]]
) -> None:
    session, prompt, before = Session(*model), first, CacheUse(0)
    for added in ([], *more):
        # As agents do: the newest message has a breakpoint, the earlier ones have none.
        prompt = [Part("", one.text, one.role) for one in (*prompt, *added)]
        prompt[-1] = Part("", prompt[-1].text, "user", "5m")
        found = session.send(*prompt)
        assert found.cached >= before.cached
        assert found.cacheable >= before.cacheable
        before = found


@given(models, prompts, prompts, prompts)
def test_nothing_is_read_after_a_break(
    model: tuple[str, str], same: list[Part], old: list[Part], new: list[Part]
) -> None:
    session = Session(*model)
    broken = Part("", b"0" + new[0].text, new[0].role, new[0].cache_mark)
    session.send(*same, Part("", b"1" + old[0].text), *old)
    kept = sum(len(one.text) for one in same)
    assert session.send(*same, broken, *new).cacheable <= kept


@given(models, prompts, prompts)
def test_a_long_pause_empties_the_cache(
    model: tuple[str, str], first: list[Part], later: list[Part]
) -> None:
    session = Session(*model)
    session.send(*first)
    assert session.send(*later, after=4001.0) == Session(*model).send(*later)
