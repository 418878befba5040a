"""HTTP on the Unix socket, and on TCP where configured, as OpenAI's API has it."""

from edged.frontends.http.connection import ConnectionLimits
from edged.frontends.http.server import HttpFrontend

__all__ = ["ConnectionLimits", "HttpFrontend"]
