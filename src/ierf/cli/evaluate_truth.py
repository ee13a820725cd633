"""`ierf evaluate truth`: explanations of scenes whose concepts are known, against what is known."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from ierf.cli.evaluate import Folder, Seed, tracked
from ierf.cli.evaluate_concepts import names_of, show_all
from ierf.cli.options import Device
from ierf.errors import UnknownNameError
from ierf.experiments.fitted import parse_recipes
from ierf.experiments.journal import Track
from ierf.experiments.methods import GROUPS, parse_methods
from ierf.experiments.results import Results
from ierf.experiments.tables import check_out
from ierf.experiments.truth_concepts import ConceptSettings
from ierf.experiments.truth_concepts import truth_concepts as run_concepts
from ierf.experiments.truth_cue import truth_cue as run_cue
from ierf.experiments.truth_edges import truth_edges as run_edges
from ierf.experiments.truth_local import truth_local as run_local
from ierf.graph import METHODS
from ierf.model import VisionModel, load

LEVELS = ("local", "cue", "concepts", "edges")
CUE_MODEL = "bundled:world-cnn-cue"
EXTRACTORS = ["bisecting", "dictionary", "pca", "sae_topk?samples=100000&lr=0.002"]
LAYERS = ["layer3", "layer4", "layer5"]


def truth(
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="SPEC", help="A network for the scenes: bundled:world-cnn or -vit.")
    ] = "bundled:world-cnn",
    levels: Annotated[
        list[str] | None,
        typer.Option("--levels", metavar="NAME[,NAME…]", help=f"Of {', '.join(LEVELS)}; default: all."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@RESOLUTION][?OPTION=VALUE]", help=f"Or {', '.join(GROUPS)} (default)."),
    ] = None,
    extractors: Annotated[
        list[str] | None,
        typer.Option("--extractors", "-e", metavar="NAME[?OPTION=VALUE]", help=f"Default: {', '.join(EXTRACTORS)}."),
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", "-l", metavar="NAME[,NAME…]", help=f"Default: {', '.join(LAYERS)}.")
    ] = None,
    concepts: Annotated[int, typer.Option("--concepts", "-k", min=1, metavar="K", help="Of each layer.")] = (
        ConceptSettings.n_concepts
    ),
    limit: Annotated[int, typer.Option(min=1, help="So many scenes.")] = 100,
    seeds: Annotated[int, typer.Option(min=1, help="So many fits of each extractor.")] = 3,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-truth"),
) -> None:
    """Scenes of ierf.world: are explanations right? Parts that decide, parts that do not, a planted cue.

    local: maps against the masks of the parts that decide. cue: a network that learnt a tint, beside the one of
    --model that did not. concepts: does each stand for one part, is each part found? edges: do they lead from parts to
    the classes that ask for them?

    Examples:

        ierf evaluate truth --levels local --methods srd,gradcam,random --limit 20

        ierf evaluate truth --levels concepts -e bisecting,pca -l layer4 --seeds 5
    """
    wanted = names_of(levels) or list(LEVELS)
    for name in wanted:
        if name not in LEVELS:
            raise UnknownNameError("level", name, LEVELS)
    rows, recipes = parse_methods(methods or ["all"]), parse_recipes(extractors or EXTRACTORS)
    names, network = names_of(layers) or LAYERS, load(model, device)
    settings = ConceptSettings(concepts)
    check_out(out)
    runs: Mapping[str, Callable[[Track], dict[str, Results]]] = {
        "local": lambda track: {"local": run_local(network, rows, out, scenes=limit, track=track)},
        "cue": lambda track: {"cue": run_cue(_both(network, device), rows, out, scenes=limit, seed=seed, track=track)},
        "concepts": lambda track: run_concepts(network, recipes, names, out, settings, seeds=seeds, track=track),
        "edges": lambda track: {
            f"edges-{name}": run_edges(
                network, list(METHODS), name, out, settings, scenes=limit, seed=seed, track=track
            )
            for name in names
        },
    }
    for level in wanted:
        with tracked() as track:
            found = runs[level](track)
        show_all({f"truth-{name}": results for name, results in found.items()}, out)


def _both(network: VisionModel, device: str) -> dict[str, VisionModel]:
    return {"clean": network, "tinted": load(CUE_MODEL, device)}
