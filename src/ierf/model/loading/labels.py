"""Class names from a file."""

import json
from pathlib import Path
from typing import Any

from ierf.errors import IerfError
from ierf.model.files import missing


def read_labels(path: Path) -> list[str]:
    """One label per class: the lines of a text file, or JSON: a list, or an object from indices to labels.

    In JSON an object with a `name` may stand for a label, and an object with `classes` around the list. Raises
    `IerfError` for anything else.
    """
    if not path.exists():
        raise missing(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        return _as_list(content)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise IerfError(
            f"{str(path)!r} holds no labels: give a text file with one label per line, "
            'or JSON such as ["cat", "dog"] or {"0": "cat", "1": "dog"}'
        ) from None


def _as_list(content: Any) -> list[str]:
    if isinstance(content, dict):
        content = content["classes"] if "classes" in content else [content[str(index)] for index in range(len(content))]
    return [entry if isinstance(entry, str) else str(entry["name"]) for entry in content]
