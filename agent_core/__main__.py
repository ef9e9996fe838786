"""`python -m agent_core` is the command `agent-core`."""

from agent_core.cli import main

if __name__ == "__main__":
    main(prog_name="agent-core")
