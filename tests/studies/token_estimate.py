"""How far is the estimate of tokens from OpenAI's encoding?

    TIKTOKEN_CACHE_DIR=FOLDER python -m tests.studies.token_estimate --out token-estimate.json

Needs the extra `tokens`, and `o200k_base` in tiktoken's cache folder. agent_core plays scenarios in
every protocol; the last prompt of each session counts. The files of this repository stand for
results of tools: program text, documents, settings.

bytes     JSON of all parts
exact     tokens by `exact_counter`
error     the estimate's, in per cent of the exact count
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from msgspec import Struct
from msgspec.structs import replace

from tests.studies.harness import (
    load_scenario,
    make_arm,
    make_parser,
    markdown_table,
    print_progress,
    write_raw,
)
from trae_bench.errors import CannotMeasure
from trae_bench.execution.subprocess_executor import SubprocessExecutor
from trae_bench.model.experiment import Trial
from trae_bench.prompt import Part, PromptReader
from trae_bench.prompt.tokens import ESTIMATE, TokenCounter, exact_counter
from trae_bench.provider.loopback import Loopback
from trae_bench.provider.script import expand
from trae_bench.run.agent_check import Listener
from trae_bench.run.scratch import scratch_folder
from trae_bench.scenario import Protocol, Scenario
from trae_bench.subject.agent_core import AgentCoreSubject

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = ("bugfix", "trajectory-long", "fan-out", "file-ops", "agent-steps")
FILES = ("trae_bench/run/*.py", "tests/agent_core/*.py", "docs/*.md", "scenarios/*.toml")
MAX_FILE = 20_000
"""Characters of a file, as tools cut them."""


class Compared(Struct, frozen=True):
    """One text, counted in both ways."""

    name: str
    size: int
    exact: int
    estimate: int

    @property
    def error(self) -> float:
        return self.estimate / self.exact - 1


def compared(name: str, parts: Sequence[Part], exact: TokenCounter) -> Compared:
    counts = (sum(map(counter.of_part, parts)) for counter in (exact, ESTIMATE))
    return Compared(name, sum(len(part.text) for part in parts), *counts)


def prompts(names: Sequence[str]) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """Yield the last prompt of a session of each scenario in each protocol."""
    for name in names:
        scenario = load_scenario(name)
        for protocol in get_args(Protocol):
            print_progress(f"{name}, {protocol}")
            conditions = replace(scenario.provider, protocol=protocol)
            body = last_body(replace(scenario, provider=conditions))
            prompt = PromptReader().read(protocol, body)
            if prompt is None:
                raise CannotMeasure(f"{name}: the last request of {protocol} has no prompt")
            yield f"{name}, {protocol}", prompt.parts


def last_body(scenario: Scenario) -> bytes:
    trial = Trial(scenario.name, "", "serial", 0, "A", 0, make_arm(scenario), 0)
    with scratch_folder() as scratch, Loopback() as provider:
        listener = Listener(provider)
        with SubprocessExecutor(
            AgentCoreSubject(), listener, {scenario.name: scenario}, script=expand, scratch=scratch
        ) as executor:
            (sample,) = executor.run([trial])
    if not sample.correct:
        raise CannotMeasure(f"{scenario.name}: {sample.problem}")
    return listener.log.last_body


def results_of_tools() -> Iterator[tuple[str, tuple[Part, ...]]]:
    for pattern in FILES:
        texts = (path.read_text("utf-8")[:MAX_FILE] for path in sorted(ROOT.glob(pattern)))
        messages = ({"role": "tool", "content": text} for text in texts)
        dumped = (json.dumps(one, ensure_ascii=False).encode() for one in messages)
        yield pattern, tuple(Part("", text, "tool") for text in dumped)


def report(found: Sequence[Compared]) -> str:
    rows = [(one.name, one.size, one.exact, f"{one.error:+.1%}") for one in found]
    return markdown_table(("text", "bytes", "exact", "error"), rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, "token_estimate")
    parser.add_argument("scenarios", nargs="*", default=SCENARIOS)
    options = parser.parse_args(argv)
    exact = exact_counter()
    if exact is None:
        raise CannotMeasure("the exact count is not available; see the head of this module")
    texts = [*prompts(options.scenarios), *results_of_tools()]
    found = [compared(name, parts, exact) for name, parts in texts]
    write_raw(options, results=found)
    print(report(found))


if __name__ == "__main__":
    main()
