"""MQTT: prompts in, streamed frames out, nothing lost in between. The entrance is `frontend`."""
