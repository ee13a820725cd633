"""What a browser may ask for, with the shape of each request."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Class = Annotated[int, Field(ge=0)] | Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=200)]
Concept = Annotated[str, Field(max_length=200, pattern=r"^[^/]+/[0-9]{1,9}$")]
"""As in "layer3.1/512"."""


class _Asked(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    photo: Annotated[str, Field(max_length=64)]
    """What the upload was answered with."""


class Maps(_Asked):
    """Where the evidence for classes is."""

    kind: Literal["maps"]
    classes: Annotated[list[Class], Field(min_length=1, max_length=8)] | None = None
    """None: the three most probable."""
    method: Name | None = None
    """None: the model's usual one."""
    resolution: Name | None = None
    """None: low, high and input, as far as the method has them."""


class Ierf(_Asked):
    """The pixels that caused one feature vector."""

    kind: Literal["ierf"]
    layer: Name
    position: Annotated[list[Annotated[int, Field(ge=0, le=1_000_000)]], Field(min_length=2, max_length=2)]
    """Row and column."""
    target: Class | None = None
    """The class that the vector's relevance is measured for; None: the most probable."""
    method: Name | None = None


class Graph(_Asked):
    """Which concepts made the classes."""

    kind: Literal["graph"]
    classes: Annotated[list[Class], Field(min_length=1, max_length=4)] | None = None
    """None: the two most probable."""
    layers: Annotated[list[Name], Field(min_length=1, max_length=64)] | None = None
    """None: all of the bank."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of the flow between two layers whose edges are kept."""


class Intervention(_Asked):
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


Asked = Annotated[Maps | Ierf | Graph | Intervention, Field(discriminator="kind")]
