"""Makes edged's Debian packages: `python -m tools.debian` (make deb)."""
