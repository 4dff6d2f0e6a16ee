"""Everything at once for some minutes, with kills: `python -m benchmarks.soak --minutes 10`.

__main__.py   the command: servers, actors, the account at the end
world.py      the project, whose values say themselves what they must be; what the processes share
reader.py     a process that reads with one of the clients and checks each value
actors.py     those who write, apply, prune, stream, kill

A wrong value, an error outside of the one restart of Redis, memory that grows, connections without bound: it ends with
a code other than 0. What is counted at the end must equal what was sent.
"""
