"""`ierf evaluate truth`: explanations of scenes whose concepts are known, against what is known."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from ierf.cafe import METHODS as LATENT_METHODS
from ierf.cli.app import Device, names_of, tracked
from ierf.cli.evaluate import Folder, Seed
from ierf.cli.evaluate_concepts import show_all
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import GROUPS, Method, Results, Track, check_out, parse_methods
from ierf.experiments.concepts.fitted import parse_recipes
from ierf.experiments.truth.between import truth_between as run_between
from ierf.experiments.truth.concepts import ConceptSettings
from ierf.experiments.truth.concepts import truth_concepts as run_concepts
from ierf.experiments.truth.edges import truth_edges as run_edges
from ierf.experiments.truth.latents import truth_latents as run_latents
from ierf.experiments.truth.local import over_networks
from ierf.experiments.truth.local import truth_cue as run_cue
from ierf.experiments.truth.local import truth_local as run_local
from ierf.graph import METHODS
from ierf.model import VisionModel, load
from ierf.world import CUE_CLASS

LEVELS = ("local", "cue", "concepts", "latents", "edges")
CUE_MODELS = {"bundled:world-vit": "bundled:world-vit-cue"}
USUAL_CUE_MODEL = "bundled:world-cnn-cue"
EXTRACTORS = ["bisecting", "dictionary", "pca", "sae_topk?samples=100000&lr=0.002"]
LAYERS = ["layer3", "layer4", "layer5", "blocks.0", "blocks.1", "blocks.2"]


def truth(
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="SPEC", help="A network for the scenes: bundled:world-cnn or -vit.")
    ] = "bundled:world-cnn",
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC[,SPEC…]", help="Networks trained otherwise: local, with intervals over networks."),
    ] = None,
    cued: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help=f"A network that was trained with the tint of {CUE_CLASS!r}; default: a bundled one of the same kind.",
        ),
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option("--levels", metavar="NAME[,NAME…]", help=f"Of {', '.join(LEVELS)}; default: all."),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[@RESOLUTION][?OPTION=VALUE]", help=f"Or {', '.join(GROUPS)}; default: every method."
        ),
    ] = None,
    extractors: Annotated[
        list[str] | None,
        typer.Option("--extractors", "-e", metavar="NAME[?OPTION=VALUE]", help=f"Default: {', '.join(EXTRACTORS)}."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help=f"Default: those it has of {', '.join(LAYERS)}."),
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
    --model that did not. concepts: does each stand for one part, is each part found? latents: is what drives them on
    their parts? edges: do they lead from primitives and parts, layer by layer, to the classes that ask for them?

    Examples:

        ierf evaluate truth --levels local --methods srd,gradcam,random --limit 20

        ierf evaluate truth --levels concepts -e bisecting,pca -l layer4 --seeds 5
    """
    wanted = names_of(levels) or list(LEVELS)
    for name in wanted:
        if name not in LEVELS:
            raise UnknownNameError("level", name, LEVELS)
    specs = [model, *(names_of(also) or ())]
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice is not None:
        raise IerfError(f"--model and --also name {twice!r} more than once; each network counts once")
    rows, recipes = parse_methods(methods or ["all"]), parse_recipes(extractors or EXTRACTORS)
    network = load(model, device)
    there = dict(network.net.named_modules())
    names = names_of(layers) or [name for name in LAYERS if name in there]
    settings = ConceptSettings(concepts)
    check_out(out)
    runs: Mapping[str, Callable[[Track], dict[str, Results]]] = {
        "local": lambda track: _local(
            {model: network, **{spec: load(spec, device) for spec in specs[1:]}}, rows, out, limit, track
        ),
        "cue": lambda track: {
            "cue": run_cue(
                {"clean": network, "tinted": load(cued or CUE_MODELS.get(model, USUAL_CUE_MODEL), device)},
                rows,
                out,
                scenes=limit,
                seed=seed,
                track=track,
            )
        },
        "concepts": lambda track: run_concepts(network, recipes, names, out, settings, seeds=seeds, track=track),
        "latents": lambda track: {
            f"latents-{name}-{reading}": results
            for name in names
            for reading, results in run_latents(
                network, list(LATENT_METHODS), name, out, scenes=limit, seed=seed, track=track
            ).items()
        },
        "edges": lambda track: _edges(network, names, out, settings, limit, seed, track),
    }
    for level in wanted:
        with tracked() as track:
            found = runs[level](track)
        show_all({f"truth-{name}": results for name, results in found.items()}, out)


def _local(
    networks: Mapping[str, VisionModel], rows: Sequence[Method], out: Path, scenes: int, track: Track
) -> dict[str, Results]:
    """The tables of each network, the first's in `out` itself, and of all of them if there are several."""
    folders = [out, *(out / f"network-{number}" for number in range(2, len(networks) + 1))]
    found = {
        name: run_local(network, rows, folder, scenes=scenes, track=track)
        for (name, network), folder in zip(networks.items(), folders, strict=True)
    }
    tables = {
        "local" if folder == out else f"local-{folder.name}": results
        for folder, results in zip(folders, found.values(), strict=True)
    }
    return tables if len(found) == 1 else {**tables, "local-networks": over_networks(found)}


def _edges(
    network: VisionModel,
    layers: Sequence[str],
    out: Path,
    settings: ConceptSettings,
    scenes: int,
    seed: int,
    track: Track,
) -> dict[str, Results]:
    """From each layer to the classes, and to the layer after it."""
    rows = list(METHODS)
    to_classes = {
        f"edges-{layer}": run_edges(network, rows, layer, out, settings, scenes=scenes, seed=seed, track=track)
        for layer in layers
    }
    between = {
        f"edges-{a}-{b}": run_between(network, rows, a, b, out, settings, scenes=scenes, seed=seed, track=track)
        for a, b in pairwise(layers)
    }
    return to_classes | between
