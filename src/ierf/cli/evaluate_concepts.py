"""`ierf evaluate`: Table III, Figs. 7 and 11, and the curves about concepts, edges between them, and latents."""

from pathlib import Path
from typing import Annotated

import typer

from ierf.cli.app import DEFAULT_MODEL, Device, Model, measuring, names_of, say_path
from ierf.cli.evaluate import Data, Folder, Limit, Seed, show_all
from ierf.concepts import ConceptBank
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import Results, check_out, open_data
from ierf.experiments.cafe import DEFAULT, CafeSettings
from ierf.experiments.cafe import cafe as run_cafe
from ierf.experiments.concept_fidelity import (
    TRACKED,
    Concepts,
    FidelitySettings,
    areas,
    curves_json,
    of_bank,
    of_fitted,
    panels,
    tables,
)
from ierf.experiments.concept_fidelity import concept_fidelity as run_fidelity
from ierf.experiments.extractors import DICTIONARY_LIMIT, FitSettings, all_fitted, parse_recipes
from ierf.experiments.extractors import concept_stability as run_stability
from ierf.experiments.extractors import extractors as run_extractors
from ierf.experiments.graphs import GraphSettings
from ierf.experiments.graphs import graphs as run_graphs
from ierf.experiments.graphs import tables as graph_tables
from ierf.experiments.interlayer import SCORES, InterlayerSettings, pairs_of
from ierf.experiments.interlayer import interlayer as run_interlayer
from ierf.files import write
from ierf.graph import METHODS
from ierf.model import load
from ierf.store import PFVStore

EXTRACTORS = ["bisecting", "dictionary", "sae_topk"]
"""Table III's, with autoencoders as they are built today."""

Store = Annotated[Path, typer.Option("--store", "-s", metavar="STORE", help="What `ierf collect` wrote.")]
Recipes = Annotated[
    list[str] | None,
    typer.Option(
        "--extractors", "-e", metavar="NAME[?OPTION=VALUE]", help=f"May be repeated; default: {', '.join(EXTRACTORS)}."
    ),
]
Layers = Annotated[
    list[str] | None, typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="From the pixels on; default: all.")
]
Count = Annotated[
    int | None, typer.Option("--concepts", "-k", min=1, metavar="K", help="Of each layer; default: 8 for each channel.")
]
L0Ratio = Annotated[float, typer.Option(metavar="R", help="Sparsity that λ is chosen for, 1 − ‖u‖₀/K.")]
HeldOut = Annotated[int, typer.Option(min=1, metavar="N", help="Photographs that are not fitted; a fifth at most.")]
DictionaryLimit = Annotated[
    int, typer.Option(min=0, metavar="K", help="Dictionary learning is left out of layers with more concepts.")
]


def extractors(
    store: Store,
    extractors: Recipes = None,
    layers: Layers = None,
    concepts: Count = None,
    l0_ratio: L0Ratio = FitSettings.l0_ratio,
    held_out: HeldOut = FitSettings.held_out,
    dictionary_limit: DictionaryLimit = DICTIONARY_LIMIT,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-extractors"),
) -> None:
    """Table III: what each extractor keeps of feature vectors that it has not seen, and how sparsely.

    Two rows for each: with its own codes, and with the Lasso's. The concepts stay in fitted/.

    Examples:

        ierf evaluate extractors --store store.zarr --out table3

        ierf evaluate extractors -s store.zarr -e bisecting -e "sae_topk?samples=200000" -l layer3.1,layer4.1
    """
    opened, recipes = PFVStore(store), parse_recipes(extractors or EXTRACTORS)
    settings = FitSettings(concepts, l0_ratio, held_out, seed)
    check_out(out)
    with measuring() as progress:
        found = run_extractors(
            opened,
            recipes,
            out,
            settings,
            layers=names_of(layers),
            dictionary_limit=dictionary_limit,
            device=device,
            progress=progress,
        )
    show_all(found, out)


def concept_stability(
    store: Store,
    extractors: Recipes = None,
    layers: Layers = None,
    concepts: Count = None,
    l0_ratio: L0Ratio = FitSettings.l0_ratio,
    held_out: HeldOut = FitSettings.held_out,
    dictionary_limit: DictionaryLimit = DICTIONARY_LIMIT,
    seeds: Annotated[int, typer.Option(min=2, help="So many fits of each.")] = 3,
    seed: Annotated[int, typer.Option(help="The first of them.")] = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-extractors"),
) -> None:
    """How alike the concepts are that an extractor finds with different seeds, matched one to one.

    Fits that `ierf evaluate extractors` left in the same folder are used again.

    Example:

        ierf evaluate concept-stability --store store.zarr --out table3 --seeds 3
    """
    opened, recipes = PFVStore(store), parse_recipes(extractors or EXTRACTORS)
    settings = FitSettings(concepts, l0_ratio, held_out, seed)
    check_out(out)
    with measuring() as progress:
        found = run_stability(
            opened,
            recipes,
            out,
            settings,
            seeds=seeds,
            layers=names_of(layers),
            dictionary_limit=dictionary_limit,
            device=device,
            progress=progress,
        )
    show_all(found, out)


def concept_fidelity(
    data: Data,
    model: Model = DEFAULT_MODEL,
    bank: Annotated[
        list[str] | None, typer.Option("--bank", "-b", metavar="DIR|hf:OWNER/NAME", help="One of each extractor.")
    ] = None,
    fitted: Annotated[
        Path | None, typer.Option("--fitted", metavar="DIR", help="Where `ierf evaluate extractors` wrote.")
    ] = None,
    layers: Layers = None,
    points: Annotated[int, typer.Option(min=2, help="Of a curve, at most.")] = FidelitySettings.points,
    limit: Limit = 100,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-concept-fidelity"),
) -> None:
    """C-insertion and C-deletion: how fast the class comes and goes with its most important concepts.

    Areas of the predicted class's probability and of its being predicted, and the curves as pictures.

    Examples:

        ierf evaluate concept-fidelity --data photos/ --fitted table3

        ierf evaluate concept-fidelity --data val.parquet --bank bisecting/ --bank topk/ --limit 20
    """
    banks = [ConceptBank.load(address) for address in bank or []]
    sets: list[Concepts] = [one for opened in banks for one in of_bank(opened)]
    identity: dict[str, object] = {f"bank {i}": opened.plan.to_json() for i, opened in enumerate(banks)}
    if fitted is not None:
        of_run = all_fitted(fitted, names_of(layers))
        sets += of_fitted(of_run)
        identity["fitted"] = [one.facts for one in of_run]
    if not sets:
        raise IerfError("give concepts: --bank DIR, or --fitted with the folder of `ierf evaluate extractors`")
    vision_model, photos = load(model, device), open_data(data)
    for opened in banks:
        opened.check_model(vision_model)
    check_out(out)
    settings = FidelitySettings(points=points, seed=seed)
    with measuring() as progress:
        found = run_fidelity(
            vision_model, sets, identity, photos, out, settings, layers=names_of(layers), limit=limit, progress=progress
        )
    chosen = names_of(layers) or list(dict.fromkeys(one.layer for one in sets))
    show_all(tables(found, chosen), out)
    for tracked_value in TRACKED:
        prefixes = {layer: f"{layer} {tracked_value}" for layer in chosen}
        _write_curves(found, prefixes, tracked_value, out, f"{tracked_value}-curves")


def interlayer(
    data: Data,
    bank: Annotated[str, typer.Option("--bank", "-b", metavar="DIR|hf:OWNER/NAME", help="The concepts.")],
    model: Model = DEFAULT_MODEL,
    layers: Layers = None,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME[,NAME…]", help=f"Of {', '.join(METHODS)}; default: all.")
    ] = None,
    targets: Annotated[
        int, typer.Option(min=1, help="Concepts of the later layer, the most important for the predicted class.")
    ] = InterlayerSettings.targets,
    score: Annotated[
        str, typer.Option(metavar="|".join(SCORES), help="Cosines (ICAT), or projections (GIG).")
    ] = InterlayerSettings.score,
    points: Annotated[int, typer.Option(min=2, help="Of a curve, at most.")] = InterlayerSettings.points,
    shap_samples: Annotated[
        int | None, typer.Option(min=8, help="Coalitions of KernelSHAP; default: four for each concept, at least 512.")
    ] = None,
    limit: Limit = 100,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-interlayer"),
) -> None:
    """Fig. 11: a layer's concepts go or come by their attribution to a concept of the next; how fast does it follow?

    Writes a table of areas for insertion, deletion and their difference, and curves.png with the curves.

    Examples:

        ierf evaluate interlayer --data photos/ --bank bank/

        ierf evaluate interlayer --data val.parquet --bank bank/ -l layer2.1,layer3.1,layer4.1 --score gig --targets 5
    """
    settings = InterlayerSettings(
        tuple(names_of(methods) or METHODS), targets, score, points, shap_samples=shap_samples, seed=seed
    )
    concepts, vision_model, photos = ConceptBank.load(bank), load(model, device), open_data(data)
    chosen = names_of(layers) or list(concepts.layers)
    check_out(out)
    with measuring() as progress:
        found = run_interlayer(
            vision_model, concepts, photos, out, settings, layers=chosen, limit=limit, progress=progress
        )
    pairs = {name: name for name in pairs_of(chosen)}
    show_all(areas(found, pairs, found.title), out)
    _write_curves(found, pairs, "largest cosine" if score == "icat" else "largest projection", out, "curves")


def graphs(
    data: Data,
    bank: Annotated[str, typer.Option("--bank", "-b", metavar="DIR|hf:OWNER/NAME", help="The concepts.")],
    model: Model = DEFAULT_MODEL,
    layers: Layers = None,
    budget: Annotated[int, typer.Option(min=1, help="Groups of a layer, and about as many concepts.")] = (
        GraphSettings.budget
    ),
    steps: Annotated[int, typer.Option(min=1, help="Of integrated gradients.")] = GraphSettings.steps,
    most_steps: Annotated[int, typer.Option(min=1, help="Where they do not add up.")] = GraphSettings.most_steps,
    pictures: Annotated[bool, typer.Option(help="Graphs are timed with pictures, too.")] = False,
    limit: Limit = 50,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-graphs"),
) -> None:
    """Graphs of groups beside those of single concepts: do they hold the score, and do their claims come true?

    For each photograph and its two most probable classes: the flow that is followed from the classes down, and what
    residuals take of it; claims against what the classes lose when a node is taken out; how exactly parts add up; cost.

    Examples:

        ierf evaluate graphs --data photos/ --bank bank/

        ierf evaluate graphs --model bundled:vit-tiny --data val.parquet --bank vit_bank --budget 7 --limit 20
    """
    settings = GraphSettings(budget, steps, most_steps, pictures, seed)
    concepts, vision_model, photos = ConceptBank.load(bank), load(model, device), open_data(data)
    chosen = names_of(layers) or list(concepts.layers)
    check_out(out)
    with measuring() as progress:
        found = run_graphs(vision_model, concepts, photos, out, settings, layers=chosen, limit=limit, progress=progress)
    show_all(graph_tables(found, chosen), out)


def _write_curves(found: Results, prefixes: dict[str, str], height: str, out: Path, name: str) -> None:
    contents = {
        f"{name}.json": curves_json(found, list(prefixes.values())).encode(),
        f"{name}.png": panels(found, prefixes, height),
    }
    for file, content in contents.items():
        if content is not None:
            write(out / file, content)
            say_path(out / file)


def cafe(
    index: Annotated[Path, typer.Option("--index", metavar="DIR", help="What `ierf cafe` left in its folder.")],
    sae: Annotated[Path, typer.Option("--sae", metavar="DIR", help="What `ierf sae train` wrote.")],
    model: Model = DEFAULT_MODEL,
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="SPEC", help="Default: what the index was made of.")
    ] = None,
    layers: Annotated[
        list[str] | None, typer.Option("--layer", "-l", metavar="NAME[,NAME…]", help="Default: all of the index.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME[,NAME…]", help=f"Default: {', '.join(DEFAULT)}.")
    ] = None,
    latents: Annotated[
        int, typer.Option(min=1, help="Of each layer and kind of token, drawn by the seed.")
    ] = CafeSettings.latents,
    images: Annotated[int, typer.Option(min=1, help="Photographs of each latent.")] = CafeSettings.images,
    points: Annotated[int, typer.Option(min=2, help="Of a curve, at most.")] = CafeSettings.points,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-cafe-curves"),
) -> None:
    """Fig. 7: patches appear in the order of each attribution; how soon is the latent's activation back?

    Areas of insertion and deletion for each layer, at patches and at the class token; for latents whose activation is
    spread little and much; and how non-local latents are. Intervals are over latents.

    Example:

        ierf evaluate cafe --model bundled:vit-tiny --sae saes --index latents/index --latents 20 --images 2
    """
    from ierf.cafe import LatentIndex
    from ierf.concepts.sae import saved_autoencoders
    from ierf.store import open_images

    settings = CafeSettings(
        tuple(names_of(methods) or DEFAULT), latents=latents, images=images, points=points, seed=seed
    )
    opened, found = LatentIndex.open(index), saved_autoencoders(sae)
    wanted = names_of(layers) or [name for name in found if name in opened.settings["layers"]]
    for name in wanted:
        if name not in found:
            raise UnknownNameError("layer with an autoencoder", name, found)
    saes = {name: found[name].to(device) for name in wanted}
    photographs = open_images(data or opened.settings["data"])
    check_out(out)
    with measuring() as progress:
        results = run_cafe(load(model, device), saes, opened, photographs, out, settings, progress=progress)
    show_all(results, out)
