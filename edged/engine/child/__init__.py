"""The engine's process: it confines itself, loads a model and computes; the daemon imports nothing of it."""
