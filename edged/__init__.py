"""edged: a local language-model daemon for small Linux devices."""

__version__ = "0.1.0"
