"""Models: what a GGUF file holds, the memory it takes, and how it comes to the device."""
