"""Thousands of simulated devices in one process, at a real broker."""
