"""Whether the parts of the daemon get on: judged in one place, by a thread of its own."""
