"""A thousand requests of many clients, some of whom behave badly, while the engine is killed."""
