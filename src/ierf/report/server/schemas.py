"""What passes between a browser and the server: the shape of each request, its bounds, and messages without paths."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ierf.errors import IerfError
from ierf.graph.concept_graph import BUDGET, NodesName

_MIB = 2**20
RETRY_AFTER = 5
"""Seconds."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one request may bring and on what all of them together may hold."""

    upload: int = 20 * _MIB
    """Bytes of a photograph's file."""
    pixels: int = 50_000_000
    """Of a photograph: a small file can hold a picture that fills the memory."""
    request: int = 64 * 1024
    """Bytes of any other request's body."""
    patience: float = 60.0
    """Seconds until a body must have arrived."""
    arriving: int = 320 * _MIB
    """Bytes of the files of all photographs that arrive at the same time, or wait to be read."""
    decoding: int = 2
    """Photographs read at the same time."""
    queue: int = 16
    """Jobs that wait."""
    photos: int = 256 * _MIB
    """Bytes of decoded photographs that are kept."""
    results: int = 256 * _MIB
    """Bytes of results that are kept."""


class RefusedError(IerfError):
    """A request that is not served, with its HTTP status."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        """Seconds after which it may be served."""


Class = Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=200)]
Concept = Annotated[str, Field(max_length=200, pattern=r"^[^/]+/(group)?[0-9]{1,9}$")]
"""As in "layer3.1/512", or a group as in "layer3.1/group77"."""


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    photo: Annotated[str, Field(max_length=64)]
    """What the upload was answered with."""


class MapsRequest(_Request):
    """Where the evidence for classes is."""

    kind: Literal["maps"]
    classes: Annotated[list[Class], Field(min_length=1, max_length=8)] | None = None
    """None: the three most probable."""
    method: Name | None = None
    """None: the model's usual one."""
    resolution: Name | None = None
    """None: low, high and input, as far as the method has them."""


class IerfRequest(_Request):
    """The pixels that caused one feature vector."""

    kind: Literal["ierf"]
    layer: Name
    position: Annotated[list[Annotated[int, Field(ge=0, le=1_000_000)]], Field(min_length=2, max_length=2)]
    """Row and column."""
    target: Class | None = None
    """The class that the vector's relevance is measured for; None: the most probable."""
    method: Name | None = None


class GraphRequest(_Request):
    """Which concepts made the classes."""

    kind: Literal["graph"]
    classes: Annotated[list[Class], Field(min_length=1, max_length=4)] | None = None
    """None: the two most probable."""
    layers: Annotated[list[Name], Field(min_length=1, max_length=64)] | None = None
    """None: all of the bank."""
    nodes: NodesName = "groups"
    budget: Annotated[int, Field(ge=1, le=64)] = BUDGET
    """Groups of each layer."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of the flow between two layers whose edges are kept; None: all of groups, 0.8 of concepts."""


class InterventionRequest(_Request):
    """What the network says with concepts switched off or put in."""

    kind: Literal["intervention"]
    delete: Annotated[list[Concept], Field(max_length=256)] = []
    insert: Annotated[
        dict[Concept, Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]], Field(max_length=256)
    ] = {}
    """Concept -> the coefficient that is added at every position."""
    classes: Annotated[list[Class], Field(max_length=8)] = []
    """Shown beside the most probable."""
    graph: Annotated[str, Field(max_length=64)] | None = None
    """The job of a graph whose claims to hold against what happens."""


JobRequest = Annotated[MapsRequest | IerfRequest | GraphRequest | InterventionRequest, Field(discriminator="kind")]


_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\"]*[^\s'\":;,.]")
LONGEST = 600


def redacted(message: str) -> str:
    """The message with "…" for every absolute path, in one line of bounded length."""
    text = _PATH.sub("…", " ".join(message.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
