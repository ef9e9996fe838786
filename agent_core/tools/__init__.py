"""The table of tools: the description of each for the model, and its class.

Everything that a request needs is in this table, so building one imports no tool. Names and
schemas are Trae Agent's, with these differences: bash has a `session` and a `timeout`, and
needs no `command` to restart; relative paths start at the workspace.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agent_core.errors import ToolError
from agent_core.messages import ToolSpec
from agent_core.tool_names import plain_forms, plain_name


class ToolEntry(Struct, frozen=True):
    """One row of the table."""

    spec: ToolSpec
    path: str
    """`module:Class`. The class takes one argument, a `ToolContext`."""
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def description(self) -> str:
        return self.spec.description

    @property
    def parameters(self) -> dict[str, Any]:
        return self.spec.parameters


def find(table: Mapping[str, ToolEntry], name: str) -> ToolEntry:
    """The entry for `name`, which may have a prefix such as `functions.`.

    Raises `ToolError`, which lists the known names.
    """
    if name in table:
        return table[name]
    for wanted in plain_forms(name):
        for entry in table.values():
            if wanted in map(plain_name, (entry.name, *entry.aliases)):
                return entry
    raise ToolError(f"Unknown tool '{name}'. Known tools: {', '.join(table)}.")


def _object(required: tuple[str, ...], **properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _field(kind: str, description: str, **rest: Any) -> dict[str, Any]:
    return {"type": kind, "description": description, **rest}


_BASH = ToolSpec(
    "bash",
    "Run a command in a persistent bash shell. The working directory, variables and"
    " background processes last from call to call. Commands read no input: stdin is empty."
    " Long output is cut in the middle. A command that runs longer than `timeout` is"
    " killed and its shell restarted; start servers and the like in the background"
    " (`command > log 2>&1 &`).",
    _object(
        (),
        command=_field("string", "The command to run."),
        restart=_field("boolean", "Restart the shell instead of running a command."),
        timeout=_field("number", "Seconds that the command may run, 120 unless given."),
        session=_field(
            "string",
            "The name of the shell, 'main' unless given. Another name is another shell; name"
            " one only for commands that do not depend on each other, since calls in"
            " different shells may run at the same time.",
        ),
    ),
)

_EDIT = ToolSpec(
    "str_replace_based_edit_tool",
    "View, create and edit text files. `view` shows a file with numbered lines, or what is"
    " in a folder, two levels deep. `create` makes a new file and refuses an existing one."
    " `str_replace` replaces `old_str`, which has to match exactly one place in the file,"
    " white space included. `insert` puts `new_str` after line `insert_line`. Long output"
    " is cut.",
    _object(
        ("command", "path"),
        command=_field(
            "string",
            "What to do.",
            enum=["view", "create", "str_replace", "insert"],
        ),
        path=_field("string", "Absolute path of the file or folder, such as /repo/file.py."),
        file_text=_field("string", "For `create`: the text of the new file."),
        old_str=_field("string", "For `str_replace`: the text to replace."),
        new_str=_field(
            "string",
            "For `str_replace`: the new text, none unless given. For `insert`: the text to insert.",
        ),
        insert_line=_field(
            "integer", "For `insert`: the line to insert after; 0 is the top of the file."
        ),
        view_range=_field(
            "array",
            "For `view` of a file: first and last line, counted from 1; [11, -1] shows from"
            " line 11 to the end.",
            items={"type": "integer"},
        ),
    ),
)

_JSON_EDIT = ToolSpec(
    "json_edit_tool",
    "View and edit JSON files by JSONPath. `view` shows the file or what matches. `set`"
    " replaces what matches. `add` adds a key to an object, or inserts an item into an array"
    " ('$.list[0]' before the first, '$.list[-1]' at the end). `remove` removes what"
    " matches. Paths follow RFC 9535, such as $.a['b c'][-1], $..name, $.list[1:3], $[*]"
    " and $.list[?@.id == 7].",
    _object(
        ("operation", "file_path"),
        operation=_field("string", "What to do.", enum=["view", "set", "add", "remove"]),
        file_path=_field("string", "Absolute path of the JSON file."),
        json_path=_field(
            "string",
            "The place in the file, such as $.users[0].name; needed for all but `view`.",
        ),
        value={
            "type": ["object", "array", "string", "number", "boolean", "null"],
            "description": "For `set` and `add`: the new value, any JSON.",
        },
        pretty_print=_field("boolean", "Write with indentation; true unless given."),
    ),
)

_THINKING = ToolSpec(
    "sequentialthinking",
    "Think in numbered steps. Each call notes one thought; a thought may revise an earlier"
    " one or begin a branch, and the expected number of thoughts may change on the way."
    " Use it to plan, to check a solution, and to change course.",
    _object(
        ("thought", "next_thought_needed", "thought_number", "total_thoughts"),
        thought=_field("string", "This thought."),
        next_thought_needed=_field("boolean", "Whether another thought follows."),
        thought_number=_field("integer", "The number of this thought.", minimum=1),
        total_thoughts=_field("integer", "How many thoughts are expected now.", minimum=1),
        is_revision=_field("boolean", "Whether this thought revises an earlier one."),
        revises_thought=_field("integer", "Which thought it revises.", minimum=1),
        branch_from_thought=_field("integer", "The thought that this branch leaves.", minimum=1),
        branch_id=_field("string", "The name of the branch."),
        needs_more_thoughts=_field("boolean", "Whether more thoughts than expected are needed."),
    ),
)

_DONE = ToolSpec(
    "task_done",
    "Report that the task is complete. Call it only when the result has been checked; it"
    " ends the session, and other calls of the same reply are not run.",
    _object(()),
)

_SEARCH = ToolSpec(
    "ckg",
    "Find Python code by name: functions, classes, or methods of classes below a folder.",
    _object(
        ("command", "path", "identifier"),
        command=_field(
            "string",
            "What to look for.",
            enum=["search_function", "search_class", "search_class_method"],
        ),
        path=_field("string", "Absolute path of the folder, or of one file."),
        identifier=_field("string", "The name of the function, class or method."),
        print_body=_field("boolean", "Show the source too; true unless given."),
    ),
)

TOOLS: dict[str, ToolEntry] = {
    entry.name: entry
    for entry in (
        ToolEntry(_BASH, "agent_core.tools.bash:BashTool"),
        ToolEntry(_EDIT, "agent_core.tools.edit:EditTool", ("edit_tool",)),
        ToolEntry(_JSON_EDIT, "agent_core.tools.json_edit:JSONEditTool"),
        ToolEntry(_THINKING, "agent_core.tools.sequential_thinking:SequentialThinkingTool"),
        ToolEntry(_DONE, "agent_core.tools.task_done:TaskDoneTool"),
        ToolEntry(_SEARCH, "agent_core.tools.code_search:CodeSearchTool"),
    )
}
"""Every tool by name."""

tools_registry = TOOLS
"""Trae Agent's name for `TOOLS`."""
