"""Credentials taken out of texts: libraries put them into messages, and messages reach logs, pages and the store."""

import re

# s3://user:secret@host and ?token=... ; in JSON a value ends at its quotation mark.
_SECRETS = (
    re.compile(r"(?<=://)[^/\s@\"']+:[^@\s/\"']+(?=@)"),
    re.compile(r"(?i)(?:(?<=token=)|(?<=secret=)|(?<=password=)|(?<=signature=)|(?<=credential=))[^&\s\"']+"),
)


def clean(text: str) -> str:
    """Text without credentials."""
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return text
