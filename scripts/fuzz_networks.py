"""Explain random networks and complain where something that must hold does not.

    python scripts/fuzz_networks.py --count 2000 --seed 0

Prints every kind of failure with the smallest network that shows it, how many networks each property held for, and
which refusals came how often. Exits with 1 if anything failed.
"""

import argparse
import re
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.fuzz import METHODS, PROPERTIES, Program, build, complaint, programs, refusal, shrunk, usable


def kind(message: str) -> str:
    """A complaint without its numbers."""
    return re.sub(r"-?\d[\d.e+-]*", "#", message)


def fails_alike(name: str, message: str, program: Program) -> bool:
    """Whether a program violates the same property in the same way."""
    built = build(program)
    found = complaint(PROPERTIES[name], built) if usable(built) else None
    return found is not None and kind(found)[:40] == kind(message)[:40]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="stop after so long")
    parser.add_argument("--only", default="", help="properties whose name contains this")
    parser.add_argument("--shown", type=int, default=6, help="how many networks to print of each kind of failure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checks = {name: check for name, check in PROPERTIES.items() if arguments.only in name}
    began, tried, failures = time.monotonic(), 0, Counter[str]()
    refused: Counter[str] = Counter()
    seen: defaultdict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    for program in programs(arguments.count, arguments.seed):
        if time.monotonic() - began > 60 * arguments.minutes:
            break
        built = build(program)
        if not usable(built):
            continue
        tried += 1
        for method in METHODS:
            if (sentence := refusal(built, method)) is not None:
                refused[f"{method}: {kind(sentence)[:150]}"] += 1
        complaints = {name: found for name, check in checks.items() if (found := complaint(check, built)) is not None}
        failures.update(complaints.keys())
        for name, message in complaints.items():
            alike = (name.partition(",")[0], kind(message)) if "Error: " not in message else ("", kind(message))
            if len(seen[alike]) >= arguments.shown:
                continue
            small = build(shrunk(built.program, lambda p, n=name, m=message: fails_alike(n, m, p)))
            body = tuple(line for line in kind(small.net.source).splitlines() if "self.head" not in line)
            if body not in seen[alike]:
                seen[alike].add(body)
                print(f"\n## {name}: {complaint(PROPERTIES[name], small)}\n{small}", flush=True)
    print(f"\n{tried} networks in {time.monotonic() - began:.0f} s")
    for name in checks:
        print(f"{tried - failures[name]:6d} held, {failures[name]:5d} failed: {name}")
    for sentence, count in refused.most_common():
        print(f"{count:6d} refused, {sentence}")
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
