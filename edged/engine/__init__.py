"""The engine: a child process that computes, and the daemon's side of it.

`client`, `supervisor`, `plan`, `generation` and `quirks` belong to the daemon; `worker` is the child's
program, and what it imports (scheduler, llama, prompt, …) is never imported by the daemon. `messages`
is what both speak.
"""
