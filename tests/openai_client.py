"""OpenAI's own client, unchanged, over a Unix socket."""

from __future__ import annotations

from pathlib import Path

import httpx2
import openai


def openai_client(socket: Path) -> openai.AsyncOpenAI:
    """Return a client of what listens on a socket; it tries nothing twice. Close it, or leave its context."""
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    return openai.AsyncOpenAI(
        base_url="http://edged/v1",
        api_key="none",
        max_retries=0,
        http_client=openai.DefaultAsyncHttpx2Client(transport=transport),
    )
