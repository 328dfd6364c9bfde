"""What the control socket speaks: one JSON line asked, one JSON line answered, and the end.

    {"version": 1, "verb": "status"}
    {"version": 1, "ok": true, "answer": {...}}
    {"version": 1, "ok": false, "error": "one line", "exit_code": 1}

Whoever asks adds the fields of the verb. Text is escaped to ASCII, so that names which are not
UTF-8 pass through unharmed, as Python's own lone surrogates.
"""

import json
from typing import Any, TypeAlias

VERSION = 1
MAX_REQUEST = 256 * 1024
"""Bytes of a request, its newline included."""
MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer: a table of very many preopens takes some."""

Message: TypeAlias = dict[str, Any]


def encode(message: Message) -> bytes:
    """*message* as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message in *line*. Raises ValueError for anything but one JSON object."""
    try:
        message = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")
    return message


def success(answer: object) -> Message:
    """What is answered to a request that was done."""
    return {"version": VERSION, "ok": True, "answer": answer}


def failure(error: str, exit_code: int = 1) -> Message:
    """What is answered to one that was not; *error* is one line that names the cure."""
    return {"version": VERSION, "ok": False, "error": error, "exit_code": exit_code}
