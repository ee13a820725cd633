"""The command `ierf`: parse, call, print."""

from ierf.cli.app import app as main
from ierf.cli.bench import bench
from ierf.cli.bench import cafe as bench_cafe
from ierf.cli.cafe import cafe
from ierf.cli.concepts import concepts
from ierf.cli.evaluate import evaluate, truth
from ierf.cli.evaluate_concepts import cafe as evaluate_cafe
from ierf.cli.evaluate_concepts import concept_fidelity, concept_stability, extractors, graphs, interlayer
from ierf.cli.explain import demo, explain
from ierf.cli.graph import attack, graph
from ierf.cli.models import check, models, serve
from ierf.cli.sae import sae
from ierf.cli.store import collect, store

main.command()(demo)
main.command()(explain)
main.command()(check)
main.command()(models)
main.command()(collect)
main.command()(graph)
main.command()(attack)
main.command()(cafe)
main.command()(serve)
bench.command("cafe")(bench_cafe)
evaluate.command()(extractors)
evaluate.command()(concept_stability)
evaluate.command()(concept_fidelity)
evaluate.command()(interlayer)
evaluate.command()(graphs)
evaluate.command()(truth)
evaluate.command("cafe")(evaluate_cafe)
main.add_typer(bench, name="bench")
main.add_typer(concepts, name="concepts")
main.add_typer(evaluate, name="evaluate")
main.add_typer(sae, name="sae")
main.add_typer(store, name="store")

__all__ = ["main"]
