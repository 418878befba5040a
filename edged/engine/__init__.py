"""The engine: a child process that computes, and the daemon's side of it.

`client` is the daemon's side with what it owes, `supervision` keeps a process alive for it, and `child` is
that process's program, never imported by the daemon. `messages` is what both speak.
"""
