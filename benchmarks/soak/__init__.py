"""Readers, jobs, streams and kills at the same time, for some minutes: `python -m benchmarks.soak --minutes 10`.

__main__.py   the command: servers, actors, the account at the end
world.py      the project, whose values tell what they must be; the state that processes share
reader.py     a process that reads with one of the clients and checks each value
actors.py     processes that write, apply, prune, stream and kill

A wrong value, an error outside of the one restart of Redis, growing memory, or unbounded connections end it with
a code other than 0. The final counts must equal what was sent.
"""
