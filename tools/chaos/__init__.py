"""Chaos for edged's MQTT way: prompts under load while the broker, the daemon and the link fail."""
