"""Memory is taken from a real daemon's machine, and given back, while it is asked all the time."""
