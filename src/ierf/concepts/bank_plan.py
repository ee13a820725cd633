"""What a bank is to hold: everything that its bytes depend on, fixed before the first layer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ierf.errors import IerfError
from ierf.store.plan import ModelRecord, check_names
from ierf.typed import FieldError, typed

FORMAT = "ierf-concept-bank"
VERSION = 1


@dataclass(frozen=True)
class StoreRecord:
    """The store that the concepts come from."""

    address: str | None
    """Its folder; None in a bank that was published."""
    images: int
    names: str
    """SHA-256 of its list of images."""
    method: str
    options: Mapping[str, Any]
    sampling: Mapping[str, Any]


@dataclass(frozen=True)
class BankPlan:
    """All of it. Two fits with equal plans write equal bytes."""

    model: Mapping[str, Any]
    """Name, hash of the weights and preprocessing of the model, as the store has them."""
    labels: tuple[str, ...] | None
    """Names of the model's classes."""
    store: StoreRecord
    extractor: str
    options: Mapping[str, Any]
    """Of the extractor."""
    n_concepts: int | None
    """Of each layer; None: 8 for each channel."""
    seed: int
    l0_ratio: float
    positive: bool
    encoded: int | None
    versions: Mapping[str, str]
    layers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any, where: str) -> "BankPlan":
        """Raises `IerfError` for what is not a bank, or one of a newer version."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise IerfError(f"{where!r} is not a concept bank")
        version, versions = content.get("version"), content.get("versions")
        if type(version) is not int or not 1 <= version <= VERSION:
            writer = versions.get("ierf", "?") if isinstance(versions, dict) else "?"
            raise IerfError(
                f"the bank {where!r} has version {version} of the format and was written by ierf {writer}, "
                f"this ierf reads up to {VERSION}; update ierf"
            )
        try:
            plan = typed({f.name: content[f.name] for f in fields(cls) if f.name in content}, cls)
            typed(plan.model, ModelRecord, "model")
            check_names(plan.layers, "layers")
        except (FieldError, IerfError) as error:
            raise IerfError(f"the bank {where!r} is damaged: {error} in bank.json; fit it anew") from None
        return plan
