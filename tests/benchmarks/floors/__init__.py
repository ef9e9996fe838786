"""The least that a client can do for the same conversation; each module is a process of its own.

Called as `python -c "from tests.benchmarks.floors.X import main; main()" PREPARED
BASE_URL WORKSPACE [BASE_URL WORKSPACE ...]`. Where there is more than one session, the
first one warms the process up and the others run side by side.
"""
