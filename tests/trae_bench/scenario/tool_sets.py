"""Tools of real agents, as their first requests offer them; descriptions are left out."""

from typing import Any

from trae_bench.scenario.actions import ToolSchema

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer"}
WORDS = {"type": "array", "items": TEXT}
EDITOR_COMMANDS = {"type": "string", "enum": ["view", "create", "str_replace", "insert"]}


def tool(name: str, *optional: str, **parameters: dict[str, Any]) -> ToolSchema:
    """A tool whose parameters are required, except those that are named in `optional`."""
    required = [one for one in parameters if one not in optional]
    return ToolSchema(
        name,
        {
            "type": "object",
            "properties": parameters,
            "required": required,
            "additionalProperties": False,
        },
    )


TOOL_SETS: dict[str, list[ToolSchema]] = {
    "mini-swe-agent": [tool("bash", command=TEXT)],
    "trae-agent": [
        tool("bash", "restart", command=TEXT, restart=FLAG),
        tool(
            "str_replace_based_edit_tool",
            *("file_text", "old_str", "new_str", "insert_line", "view_range"),
            command=EDITOR_COMMANDS,
            path=TEXT,
            file_text=TEXT,
            old_str=TEXT,
            new_str=TEXT,
            insert_line=COUNT,
            view_range={"type": "array", "items": COUNT},
        ),
        tool("sequentialthinking", thought=TEXT, thought_number=COUNT),
        tool("task_done"),
    ],
    "claude-code": [
        tool("Task", description=TEXT, prompt=TEXT, subagent_type=TEXT),
        tool("BashOutput", "filter", bash_id=TEXT, filter=TEXT),
        tool(
            "Bash",
            *("timeout", "description", "run_in_background"),
            command=TEXT,
            timeout={"type": "number"},
            description=TEXT,
            run_in_background=FLAG,
        ),
        tool("Glob", "path", pattern=TEXT, path=TEXT),
        tool(
            "Read",
            *("offset", "limit"),
            file_path=TEXT,
            offset={"type": "number"},
            limit={"type": "number"},
        ),
        tool(
            "Edit",
            "replace_all",
            file_path=TEXT,
            old_string=TEXT,
            new_string=TEXT,
            replace_all={"type": "boolean", "default": False},
        ),
        tool("Write", file_path=TEXT, content=TEXT),
        tool("NotebookEdit", notebook_path=TEXT, new_source=TEXT),
        tool("SlashCommand", command=TEXT),
        tool("TodoWrite", todos={"type": "array"}),
        tool("KillShell", shell_id=TEXT),
    ],
    "codex-shell": [
        tool("shell", "workdir", "timeout_ms", command=WORDS, workdir=TEXT, timeout_ms=COUNT),
        tool("update_plan", plan={"type": "array"}),
        tool("view_image", path=TEXT),
    ],
    "codex-exec": [
        tool("exec_command", "workdir", "tty", cmd=TEXT, workdir=TEXT, tty=FLAG),
        tool("write_stdin", "chars", session_id=COUNT, chars=TEXT),
        tool("apply_patch", input=TEXT),
    ],
    "opencode": [
        tool("bash", "timeout", command=TEXT, timeout=COUNT, description=TEXT),
        tool("read", "offset", "limit", filePath=TEXT, offset=COUNT, limit=COUNT),
        tool("write", content=TEXT, filePath=TEXT),
        tool("edit", "replaceAll", filePath=TEXT, oldString=TEXT, newString=TEXT, replaceAll=FLAG),
        tool("list", "path", path=TEXT),
        tool("todowrite", todos={"type": "array"}),
    ],
    "gemini-cli": [
        tool("list_directory", "ignore", dir_path=TEXT, ignore=WORDS),
        tool("read_file", "offset", "limit", file_path=TEXT, offset=COUNT, limit=COUNT),
        tool("read_many_files", include=WORDS),
        tool("write_file", file_path=TEXT, content=TEXT),
        tool("save_memory", fact=TEXT),
        tool("replace", instruction=TEXT, file_path=TEXT, old_string=TEXT, new_string=TEXT),
        tool("run_shell_command", "description", command=TEXT, description=TEXT),
    ],
    "openhands": [
        tool(
            "execute_bash",
            "is_input",
            command=TEXT,
            is_input={"type": "string", "enum": ["true", "false"]},
            security_risk={"type": "string", "enum": ["LOW", "MEDIUM", "HIGH"]},
        ),
        tool("execute_ipython_cell", code=TEXT),
        tool("think", thought=TEXT),
        tool("finish", message=TEXT, task_completed={"type": "string", "enum": ["true", "false"]}),
        tool(
            "str_replace_editor",
            *("file_text", "old_str", "new_str"),
            command=EDITOR_COMMANDS,
            path=TEXT,
            file_text=TEXT,
            old_str=TEXT,
            new_str=TEXT,
        ),
    ],
    "smolagents": [
        tool("python_interpreter", code=TEXT),
        tool("run_command", command=TEXT),
        tool("final_answer", answer={"type": "any"}),
    ],
    "inspect": [tool("bash", cmd=TEXT), tool("python", code=TEXT), tool("submit", answer=TEXT)],
    "mcp": [
        tool("fs__read_file", path=TEXT),
        tool("fs__read_multiple_files", paths=WORDS),
        tool("fs__write_file", path=TEXT, content=TEXT),
        tool("fs__edit_file", path=TEXT, edits={"type": "array"}),
        tool("fs__create_directory", path=TEXT),
        tool("mcp__sh__execute", command=TEXT),
        tool("github__create_or_update_file", owner=TEXT, repo=TEXT, path=TEXT, content=TEXT),
    ],
    "langchain": [
        tool("copy_file", source_path=TEXT, destination_path=TEXT),
        tool("read_file", file_path=TEXT),
        tool(
            "write_file",
            "append",
            file_path=TEXT,
            text=TEXT,
            append={"type": "boolean", "default": False},
        ),
        tool("terminal", commands={"anyOf": [TEXT, WORDS]}),
    ],
    "openai-strict": [
        tool(
            "run_shell",
            command=TEXT,
            workdir={"type": ["string", "null"]},
            limit={"anyOf": [COUNT, {"type": "null"}]},
        )
    ],
    "agno": [
        tool("save_file", "overwrite", contents=TEXT, file_name=TEXT, overwrite=FLAG),
        tool("read_file", file_name=TEXT),
        tool("run_shell_command", "tail", args=WORDS, tail=COUNT),
    ],
}
