"""Input that nobody would send: bodies and headers, messages of the engine, models."""
