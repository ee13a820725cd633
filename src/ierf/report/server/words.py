"""Messages that leave the machine."""

import re

_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"]*[^\s'\":;,.]")
LONGEST = 600


def without_paths(message: str) -> str:
    """The message with "…" for every absolute path, in one line of bounded length."""
    text = _PATH.sub("…", " ".join(message.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
