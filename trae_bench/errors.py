"""The exceptions of `trae_bench`, with the exit code of each.

    BenchError                 base; `exit_code` is the exit code of the command
    ├── UsageError       2     wrong name, option or file; the message gives the remedy
    │   └── ScenarioError 2    wrong scenario file; the message names file, line and path
    ├── CannotMeasure    4     no measurement is possible, or a result file is unusable
    │   ├── ProviderDown 4     the scripted provider did not start or has died
    │   └── BadRunFile   4     invalid run file or journal
    └── AnswersDiffer    5     the two sides gave different answers

Other exit codes: 0 pass, 1 regression, 3 inconclusive (with --strict), 130 interrupted.
"""


class BenchError(Exception):
    """Base of all exceptions of trae-bench."""

    exit_code = 4


class UsageError(BenchError):
    """The command line, or a file that it names, is wrong."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario file is wrong. The message is `file:line: path: problem; remedy`."""


class CannotMeasure(BenchError):
    """No measurement is possible, or a result file is unusable."""


class ProviderDown(CannotMeasure):
    """The scripted provider did not start or has died."""


class BadRunFile(CannotMeasure):
    """A run file or journal is invalid."""


class AnswersDiffer(BenchError):
    """The two sides of a comparison gave different answers."""

    exit_code = 5
