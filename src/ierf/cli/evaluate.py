"""`ierf evaluate`: the paper's tables about local explanations, each one command that can be interrupted."""

from pathlib import Path
from typing import Annotated

import typer

from ierf.cli.app import DEFAULT_MODEL, Device, Model, err, out, say_path, tracked
from ierf.experiments import ABLATION, GROUPS, Results, check_out, open_data, parse_methods, save, terminal_table
from ierf.experiments.local.activations import TABLE, load_checkpoints
from ierf.experiments.local.activations import activations as run_activations
from ierf.experiments.local.manipulation import MAPS, Attack
from ierf.experiments.local.manipulation import manipulation as attack_all
from ierf.experiments.local.sanity import curve_picture
from ierf.experiments.local.sanity import sanity as run_sanity
from ierf.experiments.local.scores import METRICS, PAPER_METRICS, LocalSettings
from ierf.experiments.local.scores import local as run_local
from ierf.files import write
from ierf.model import load

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
    with tracked() as track:
        results = run_local(load(model, device), photos, rows, out, settings, limit=limit, track=track)
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
    with tracked() as track:
        found = run_sanity(load(model, device), photos, rows, out, depth=depth, limit=limit, seed=seed, track=track)
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
    with tracked() as track:
        results = attack_all(load(model, device), photos, names, out, attack, limit=limit, seed=seed, track=track)
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
    with tracked() as track:
        results = run_activations(models, photos, rows, out, settings, limit=limit, track=track)
    show(results, out, "activations")


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
