"""Logging: structlog over the standard library, one line an event, on stderr.

A terminal gets readable lines, anything else JSON; in the journal each line carries its priority.
Secrets and prompt texts are removed by their field's name, and an exception is one line unless the
level is debug. Get a logger with `structlog.get_logger(__name__)`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

Level = Literal["debug", "info", "warning", "error"]

_REMOVED = {"authorization", "body", "content", "cookie", "messages", "payload", "system", "text"}
