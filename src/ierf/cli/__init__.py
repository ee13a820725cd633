"""The command `ierf`: parse, call, print."""

from ierf.cli.app import app as main
from ierf.cli.bench import bench
from ierf.cli.check import check
from ierf.cli.collect import collect
from ierf.cli.demo import demo
from ierf.cli.evaluate import evaluate
from ierf.cli.explain import explain
from ierf.cli.models import models
from ierf.cli.store import store

main.command()(demo)
main.command()(explain)
main.command()(check)
main.command()(models)
main.command()(collect)
main.add_typer(bench, name="bench")
main.add_typer(evaluate, name="evaluate")
main.add_typer(store, name="store")

__all__ = ["main"]
