"""Before the first photograph: what is to be written, and whether the folder holds the same already."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ierf.errors import IerfError
from ierf.model import VisionModel, shift_of
from ierf.store.data import Images
from ierf.store.evidence import Site, method_of
from ierf.store.files import checksum, explained, read_json, write, write_json
from ierf.store.layout import NAMES, PLAN, RECORDS, marker, metadata, shift_bytes, shift_path
from ierf.store.plan import Plan, Settings, SourcePlan, differences
from ierf.store.weights import weights_hash

CHUNK_BYTES = 1 << 24
"""At most so many bytes in a chunk of PFVs, where one image does not need more."""


Shifts = dict[str, Float[np.ndarray, " C"]]
"""μ_BN of the layers that have one."""


def found_shifts(model: VisionModel, found: Sequence[Site]) -> Shifts:
    """μ_BN of each layer for the kind of PFVs that is kept of it."""
    shifts = {site.plan.name: shift_of(model, site.plan.name, site.plan.values) for site in found}
    return {name: shift.float().cpu().numpy() for name, shift in shifts.items() if shift is not None}


def planned(model: VisionModel, source: Images, found: Sequence[Site], settings: Settings, shifts: Shifts) -> Plan:
    """What a run with these arguments writes into an empty folder."""
    from ierf import __version__

    itemsize = np.dtype(settings.pfv_type).itemsize
    sums = {name: checksum(shift_bytes(shift)) for name, shift in shifts.items()}
    largest = max(site.plan.rows_per_image * site.plan.channels * itemsize for site in found)
    return Plan(
        model=_identity(model),
        method=method_of(model, settings),
        options=dict(settings.options),
        sampling=_sampling(settings),
        pfv_type=settings.pfv_type,
        compute={"device": model.device.type, "type": settings.compute},
        batch=settings.batch,
        block=max(1, min(settings.block, CHUNK_BYTES // largest)),
        versions={"ierf": __version__, "torch": str(torch.__version__)},
        layers=tuple(replace(site.plan, shift=sums.get(site.plan.name)) for site in found),
        sources=(SourcePlan(source.address, source.fingerprint, 0, len(source.names)),),
    )


def model_differences(plan: Plan, model: VisionModel) -> list[str]:
    """How `model` differs from the one that a store was made with."""
    return list(differences(plan.model, _as_json(_identity(model)), "model"))


def claim(folder: Path) -> None:
    """Make the folder of a store. Raises `IerfError` if something else lies there."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / RECORDS).is_dir():
            raise IerfError(f"{str(folder)!r} is not empty and holds no store; choose another folder")
        (folder / RECORDS).mkdir(exist_ok=True)


def begin(folder: Path, wanted: Plan, source: Images, append: bool, shifts: Shifts) -> Plan:
    """The plan to follow, with its metadata in the folder: the wanted one, or what continues the one that is there."""
    if (folder / PLAN).exists():
        there = Plan.from_json(read_json(folder / PLAN), str(folder))
        plan = _continued(folder, there, wanted, append)
        if plan == there:
            return plan
        names = [json.loads(line) for line in (folder / NAMES).read_text(encoding="utf-8").splitlines()]
        names = names[: there.images] + [None] * (plan.sources[-1].first - there.images)
    else:
        plan, names = wanted, []
    for path, content in metadata(plan):
        write_json(folder / path, content)
    for layer in plan.layers:
        if layer.shift is not None:
            write(folder / shift_path(layer) / "c" / "0", shift_bytes(shifts[layer.name]))
    lines = (f"{json.dumps(name, ensure_ascii=False)}\n" for name in [*names, *source.names])
    write(folder / NAMES, "".join(lines).encode())
    write_json(folder / PLAN, plan.to_json())
    return plan


def _continued(folder: Path, there: Plan, wanted: Plan, append: bool) -> Plan:
    """The store that is there, to be finished, or with other photographs behind those that it has."""
    (source,), last = wanted.sources, there.sources[-1]
    same = replace(source, first=last.first) == last
    differs = list(_differences(there, wanted))
    if not append and not same:
        differs += differences({**asdict(last), "first": 0}, asdict(source), "images")
    if differs:
        raise IerfError(
            f"the store {str(folder)!r} was begun otherwise: {'; '.join(differs)}; give the same or another folder"
        )
    if same:
        return there
    if any(not marker(folder, b).exists() for b in range(there.blocks)):
        raise IerfError(f"the store {str(folder)!r} is not complete; finish it before appending to it")
    return replace(there, sources=(*there.sources, replace(source, first=there.blocks * there.block)))


def _differences(there: Plan, wanted: Plan) -> Iterator[str]:
    """In everything but the photographs, and μ_BN, which the model and the layers decide and old stores lack."""
    one, other = (
        replace(plan, sources=(), layers=tuple(replace(layer, shift=None) for layer in plan.layers))
        for plan in (there, wanted)
    )
    return differences(_as_json(one.to_json()), _as_json(other.to_json()))


def _sampling(settings: Settings) -> dict[str, Any]:
    """As the manifest has it; stores from before prefix tokens were kept say nothing of them."""
    kept = {"prefix_tokens": True} if settings.prefix_tokens else {}
    return {"kind": settings.sampling, "per_image": settings.per_image, "seed": settings.seed, **kept}


def _identity(model: VisionModel) -> dict[str, Any]:
    return {"name": model.name, "weights": weights_hash(model.net), "preprocessing": asdict(model.preprocess)}


def _as_json(content: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(content))
