"""Telemetry: one snapshot, built in one place, and its renderings."""
