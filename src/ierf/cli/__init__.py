"""The command `ierf`: parse, call, print."""

from ierf.cli.app import app as main
from ierf.cli.bench import bench
from ierf.cli.check import check
from ierf.cli.demo import demo
from ierf.cli.explain import explain
from ierf.cli.models import models

main.command()(demo)
main.command()(explain)
main.command()(check)
main.command()(models)
main.add_typer(bench, name="bench")

__all__ = ["main"]
