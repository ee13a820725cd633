"""What the network says with concepts switched off or put in."""

from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from ierf.report.server.asked import Intervention
from ierf.report.server.graphs import found_by
from ierf.report.server.jobs import Progress, Result, Work
from ierf.report.server.subject import Subject

if TYPE_CHECKING:
    from ierf.graph import ConceptGraph
    from ierf.graph import Intervention as Outcome

TOP = 5
"""Classes shown: so many of the most probable, before and after."""


def intervention(subject: Subject, picture: Image.Image, asked: Intervention, made: Result | None) -> Work:
    """What computes it. Raises `IerfError` for a concept or class that does not exist, and without a bank.

    Where a graph was `made` and all concepts are its own, of one layer, its claims are set beside what happens.
    """
    bank = subject.concepts()
    delete = [subject.concept(name) for name in dict.fromkeys(asked.delete)]
    insert = {subject.concept(name): value for name, value in asked.insert.items()}
    named = subject.classes(asked.classes)

    def work(progress: Progress) -> Result:
        from ierf.graph import intervene

        progress.at("running the network on")
        found = intervene(subject.model, bank, subject.model.prepare(picture), delete, insert)
        classes = _classes(found.before[0].double(), found.after[0].double(), named, subject)
        return Result({"classes": classes, "claims": _claims(found_by(made), found)}, {})

    return work


def _classes(before: Tensor, after: Tensor, named: list[int], subject: Subject) -> list[dict[str, Any]]:
    """The classes named, and those that lead before or after, by their logit before."""
    leading = [i for logits in (before, after) for i in logits.topk(min(TOP, len(logits))).indices.tolist()]
    chances = before.softmax(0), after.softmax(0)
    return [
        {
            "index": index,
            "label": subject.model.label(index),
            "logits": [float(before[index]), float(after[index])],
            "probabilities": [float(chance[index]) for chance in chances],
        }
        for index in sorted({*named, *leading}, key=lambda i: -float(before[i]))
    ]


def _claims(graph: "ConceptGraph | None", found: "Outcome") -> list[dict[str, Any]]:
    from ierf.graph import claims

    layers = {name.rpartition("/")[0] for name in found.deleted}
    if graph is None or found.inserted or len(layers) != 1 or any(name not in graph.by_id for name in found.deleted):
        return []
    return [{"label": claim.label, "claimed": claim.claimed, "lost": claim.lost} for claim in claims(graph, found)]
