"""Everything that `trae_bench` raises on purpose, and the exit code each ends in.

    BenchError                 base; `exit_code` is what the command line returns
    ├── UsageError       2     a name, option or file that is wrong; says the remedy
    │   └── ScenarioError 2    a scenario file; names file, line, path
    ├── CannotMeasure    4     nothing could be measured, or a result file is unusable
    │   ├── ProviderDown 4     the scripted provider did not start or died
    │   └── BadRunFile   4     a run file or journal that is not one
    └── AnswersDiffer    5     the two sides did not give the same answer

Other exit codes: 0 pass, 1 regression, 3 inconclusive (with --strict), 130 interrupted.
"""


class BenchError(Exception):
    """Base of the tree."""

    exit_code = 4


class UsageError(BenchError):
    """The command line or a file that it names is wrong."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario file is wrong: `file:line: path: what, and the remedy`."""


class CannotMeasure(BenchError):
    """Nothing could be measured."""


class ProviderDown(CannotMeasure):
    """The scripted provider did not start, or died."""


class BadRunFile(CannotMeasure):
    """A run file or journal cannot be used."""


class AnswersDiffer(BenchError):
    """Two sides that should give one answer do not."""

    exit_code = 5
