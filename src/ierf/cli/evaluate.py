"""`ierf evaluate`: the tables about local explanations, and scenes whose concepts are known."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from ierf.cafe import METHODS as LATENT_METHODS
from ierf.cli.app import DEFAULT_MODEL, Device, Model, err, measuring, names_of, out, say_path
from ierf.errors import IerfError, UnknownNameError
from ierf.experiments import (
    ABLATION,
    GROUPS,
    Method,
    Results,
    check_out,
    open_data,
    parse_methods,
    save,
    terminal_table,
)
from ierf.experiments.extractors import parse_recipes
from ierf.experiments.local import METRICS, PAPER_METRICS, LocalSettings
from ierf.experiments.local import local as run_local
from ierf.experiments.manipulation import MAPS, Attack
from ierf.experiments.manipulation import manipulation as attack_all
from ierf.experiments.networks import TABLE, curve_picture, load_checkpoints
from ierf.experiments.networks import activations as run_activations
from ierf.experiments.networks import sanity as run_sanity
from ierf.experiments.truth.concepts import ConceptSettings
from ierf.experiments.truth.concepts import truth_concepts as run_concepts
from ierf.experiments.truth.edges import truth_between as run_between
from ierf.experiments.truth.edges import truth_edges as run_edges
from ierf.experiments.truth.latents import truth_latents as run_latents
from ierf.experiments.truth.local import over_networks
from ierf.experiments.truth.local import truth_cue as run_cue
from ierf.experiments.truth.local import truth_local as run_truth_local
from ierf.files import write
from ierf.graph import METHODS
from ierf.model import VisionModel, load
from ierf.progress import Progress
from ierf.world import CUE_CLASS

evaluate = typer.Typer(
    help="The papers' tables and figures. Interrupted runs go on where they ended.", no_args_is_help=True
)

SANITY_METHODS = ["gradient", "gradient_x_input", "guided_backprop", "lrp_zplus", "gradcam", "srd", "random"]

WIDEST = 1000
"""Columns of a terminal at which a table is cut."""

Data = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="ImageNet-S’s folder, COCO’s JSON, a CSV of boxes, a parquet file, a folder of photographs.",
    ),
]
Folder = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For tables, plot, and what is finished.")]
Limit = Annotated[int | None, typer.Option(min=1, help="So many photographs, drawn by the seed; default: all.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@evaluate.command()
def local(
    data: Data,
    model: Model = DEFAULT_MODEL,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@RESOLUTION][?OPTION=VALUE]", help=f"Or {', '.join(GROUPS)} (default)."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Of {', '.join(METRICS)}; default: the first five.")
    ] = None,
    limit: Limit = None,
    fidelity_runs: Annotated[int, typer.Option(min=2, help="Sets of pixels.")] = LocalSettings.fidelity_runs,
    fidelity_pixels: Annotated[int | None, typer.Option(min=1, help="Pixels in a set; default: the preset’s.")] = None,
    stability_samples: Annotated[int, typer.Option(min=1, help="Noisy copies.")] = LocalSettings.stability_samples,
    preset: Annotated[str, typer.Option(metavar="paper|quantus", help="Whose definitions.")] = LocalSettings.preset,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-local"),
) -> None:
    """Table I (and IV): where the evidence is, how sparse, how faithful and how stable each method's maps are.

    Writes local.csv, .md, .json, .png, and ablation.* where the three class heads are among the methods. Stability
    costs as many explanations as it has noisy copies: on a CPU take a few.

    Examples:

        ierf evaluate local --data ImageNetS50 --model timm:resnet50.a1_in1k --out table1

        ierf evaluate local --data val.parquet --methods paper --stability-samples 5 --limit 64

        ierf evaluate local --data boxes:photos.csv --methods srd,srd@high,gradcam --metrics fidelity,pointing
    """
    chosen = tuple(name for text in metrics or PAPER_METRICS for name in text.split(","))
    settings = LocalSettings(
        chosen,
        fidelity_runs=fidelity_runs,
        fidelity_pixels=fidelity_pixels,
        stability_samples=stability_samples,
        preset=preset,  # type: ignore[arg-type]
        seed=seed,
    )
    rows, photos = parse_methods(methods or ["all"]), open_data(data)
    check_out(out)
    with measuring() as progress:
        results = run_local(load(model, device), photos, rows, out, settings, limit=limit, progress=progress)
    show(results, out, "local")
    if set(ABLATION) <= set(results.rows):
        show(results.only(ABLATION, f"{results.title}: the final ratio"), out, "ablation")


@evaluate.command()
def sanity(
    data: Data,
    model: Model = DEFAULT_MODEL,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[@RESOLUTION][?OPTION=VALUE]", help="Default: gradients, Grad-CAM, SRD, random."),
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="Parts of a layer’s name that make a stage.")] = 2,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-sanity"),
) -> None:
    """Cascading randomisation: the weights are lost stage by stage, from the logits down; maps should change.

    A method whose similarity stays high shows edges of the photograph and not what the network knows. The model is
    copied, its files and weights stay as they are.

    Examples:

        ierf evaluate sanity --data photos/ --limit 32

        ierf evaluate sanity --data val.parquet --methods srd,lrp_zplus,guided_backprop --depth 1
    """
    rows, photos = parse_methods(methods or SANITY_METHODS), open_data(data)
    check_out(out)
    with measuring() as progress:
        found = run_sanity(
            load(model, device), photos, rows, out, depth=depth, limit=limit, seed=seed, progress=progress
        )
    for similarity, results in found.items():
        name = similarity.replace("|", "").replace(" ", "-")
        show(results, out, name)
        picture = curve_picture(results)
        if picture is not None:
            write(out / f"{name}.png", picture)


@evaluate.command()
def manipulation(
    data: Data,
    model: Model = DEFAULT_MODEL,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Of {', '.join(MAPS)}; default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="So many pairs of photographs, drawn by the seed.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="Of the attack, at most.")] = Attack.steps,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-manipulation"),
) -> None:
    """Fig. 4: photographs are changed, by at most 8 of 255 a channel, until their maps look like another's.

    Writes manipulation.csv, .md, .json, .png, and pairs/ with the maps: a method in each row, in each the changed
    photograph, its map before, its map after, and the map aimed at.

    Examples:

        ierf evaluate manipulation --data photos/ --model torchvision:vgg16

        ierf evaluate manipulation --data val.parquet --methods srd,gradient --limit 4 --steps 100
    """
    names = [name.strip() for text in methods or MAPS for name in text.split(",")]
    attack, photos = Attack(steps=steps), open_data(data)
    check_out(out)
    with measuring() as progress:
        results = attack_all(load(model, device), photos, names, out, attack, limit=limit, seed=seed, progress=progress)
    show(results, out, "manipulation")


@evaluate.command()
def activations(
    checkpoints: Annotated[
        Path, typer.Option(metavar="DIR", help="relu.safetensors and so on, as scripts/train_cifar_activations.py.")
    ],
    data: Data,
    methods: Annotated[
        list[str] | None, typer.Option(metavar="NAME[@RESOLUTION][?OPTION=VALUE]", help="Default: Table II’s.")
    ] = None,
    limit: Limit = None,
    fidelity_runs: Annotated[int, typer.Option(min=2, help="Sets of pixels.")] = LocalSettings.fidelity_runs,
    fidelity_pixels: Annotated[int | None, typer.Option(min=1, help="Pixels in a set; default: 200.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Folder = Path("ierf-activations"),
) -> None:
    """Table II: fidelity of each method on a small ResNet with ReLU, ELU, LeakyReLU, Swish, GELU and Tanh.

    Examples:

        ierf evaluate activations --checkpoints cifar/ --data cifar10_test.parquet --limit 100
    """
    rows, photos, models = parse_methods(methods or TABLE), open_data(data), load_checkpoints(checkpoints)
    models = {name: model.to(device) for name, model in models.items()}
    settings = LocalSettings(("fidelity",), fidelity_runs=fidelity_runs, fidelity_pixels=fidelity_pixels, seed=seed)
    check_out(out)
    with measuring() as progress:
        results = run_activations(models, photos, rows, out, settings, limit=limit, progress=progress)
    show(results, out, "activations")


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
    runs: Mapping[str, Callable[[Progress], dict[str, Results]]] = {
        "local": lambda progress: _truth_local(
            {model: network, **{spec: load(spec, device) for spec in specs[1:]}}, rows, out, limit, progress
        ),
        "cue": lambda progress: {
            "cue": run_cue(
                {"clean": network, "tinted": load(cued or CUE_MODELS.get(model, USUAL_CUE_MODEL), device)},
                rows,
                out,
                scenes=limit,
                seed=seed,
                progress=progress,
            )
        },
        "concepts": lambda progress: run_concepts(
            network, recipes, names, out, settings, seeds=seeds, progress=progress
        ),
        "latents": lambda progress: {
            f"latents-{name}-{reading}": results
            for name in names
            for reading, results in run_latents(
                network, list(LATENT_METHODS), name, out, scenes=limit, seed=seed, progress=progress
            ).items()
        },
        "edges": lambda progress: _truth_edges(network, names, out, settings, limit, seed, progress),
    }
    for level in wanted:
        with measuring() as progress:
            found = runs[level](progress)
        show_all({f"truth-{name}": results for name, results in found.items()}, out)


def _truth_local(
    networks: Mapping[str, VisionModel], rows: Sequence[Method], out: Path, scenes: int, progress: Progress
) -> dict[str, Results]:
    """The tables of each network, the first's in `out` itself, and of all of them if there are several."""
    folders = [out, *(out / f"network-{number}" for number in range(2, len(networks) + 1))]
    found = {
        name: run_truth_local(network, rows, folder, scenes=scenes, progress=progress)
        for (name, network), folder in zip(networks.items(), folders, strict=True)
    }
    tables = {
        "local" if folder == out else f"local-{folder.name}": results
        for folder, results in zip(folders, found.values(), strict=True)
    }
    return tables if len(found) == 1 else {**tables, "local-networks": over_networks(found)}


def _truth_edges(
    network: VisionModel,
    layers: Sequence[str],
    out: Path,
    settings: ConceptSettings,
    scenes: int,
    seed: int,
    progress: Progress,
) -> dict[str, Results]:
    """From each layer to the classes, and to the layer after it."""
    rows = list(METHODS)
    to_classes = {
        f"edges-{layer}": run_edges(network, rows, layer, out, settings, scenes=scenes, seed=seed, progress=progress)
        for layer in layers
    }
    between = {
        f"edges-{a}-{b}": run_between(network, rows, a, b, out, settings, scenes=scenes, seed=seed, progress=progress)
        for a, b in pairwise(layers)
    }
    return to_classes | between


def show(results: Results, folder: Path, name: str) -> None:
    """The table on standard output, whole even where that is narrow, then the files that hold it."""
    console = out()
    console.width = max(console.width, WIDEST)
    console.print(terminal_table(results))
    paths = save(results, folder, name)
    for path in paths:
        say_path(path)
    if not any(path.suffix == ".png" for path in paths):
        err().print("no plot: matplotlib is not installed; install it with: pip install 'ierf[plot]'", markup=False)


def show_all(found: dict[str, Results], out: Path) -> None:
    """All tables, and their files."""
    for name, results in found.items():
        show(results, out, name.replace(" ", "-"))
