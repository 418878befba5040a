"""MQTT: prompts in, frames out, over a broker."""
