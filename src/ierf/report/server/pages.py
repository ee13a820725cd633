"""The page, what it knows of the model, and what browsers may do with it."""

import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ierf.attribution import METHODS
from ierf.attribution.passes import RULES
from ierf.report.components import document
from ierf.report.explanation import RESOLUTIONS
from ierf.report.server.jobs import File
from ierf.report.server.limits import Limits
from ierf.report.server.subject import Subject
from ierf.report.words import METHOD_NAMES

_TYPES = {"serve.css": "text/css; charset=utf-8", "serve.js": "text/javascript; charset=utf-8"}


def page(subject: Subject, limits: Limits) -> str:
    """The page as HTML; the rest is fetched from this server."""
    height, width = subject.model.preprocess.size
    body = Template(_text("serve.html")).substitute(
        model=escape(subject.model.name),
        size=f"{width} × {height}",
        upload=f"{limits.upload / 2**20:g} MiB",
        concepts="" if subject.bank is not None else "hidden",
        no_concepts="hidden" if subject.bank is not None else "",
    )
    return document(f"ierf: {subject.model.name}", body)


def about(subject: Subject, limits: Limits) -> dict[str, Any]:
    """What the page offers to choose from."""
    return {
        "name": subject.model.name,
        "labels": [subject.model.label(index) for index in range(subject.n_classes)],
        "methods": [
            {"name": name, "title": METHOD_NAMES.get(name, name.replace("_", " ")), "rules": name in RULES}
            for name in METHODS
        ],
        "usual": subject.usual,
        "resolutions": RESOLUTIONS,
        "layers": [layer._asdict() for layer in subject.layers],
        "bank": None if subject.bank is None else subject.bank.layers,
        "upload": limits.upload,
    }


def resources() -> dict[str, File]:
    """The page's script and style."""
    return {name: File(kind, _text(name).encode()) for name, kind in _TYPES.items()}


def _text(name: str) -> str:
    return files("ierf.report.server").joinpath(name).read_text(encoding="utf-8")


def _styles_of_the_page() -> str:
    """The hash by which a browser knows the style that is written in every report's page."""
    (style,) = re.findall("<style>(.*?)</style>", document("", ""), re.DOTALL)
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"


HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self' {_styles_of_the_page()}; img-src 'self' blob:; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer: nothing comes from elsewhere, nothing goes elsewhere, nobody frames the page."""

FRAMED = {
    "content-security-policy": (
        "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
}
"""Of a graph's page: its own script runs, but as a stranger that cannot reach this server."""
