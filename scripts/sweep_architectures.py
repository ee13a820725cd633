"""Which architectures are explained rightly, which are refused, and which are wrong: a sweep with random weights.

    python scripts/sweep_architectures.py                    # all, on one core; interrupted, it goes on from there
    python scripts/sweep_architectures.py --only 'hf:Swin'   # those whose name matches, again
    python scripts/sweep_architectures.py --write            # docs/architectures.md from what is known

An architecture "works" for a method if the recorded pass gives the logits of the plain one (to 1e-9 in float64, or 1e-4
where it insists on float32), the ledger leaves nothing unexplained, and the map is finite, the same beside another
picture, and not zero where gradient × input is not. Anything else that is not refused in a sentence is a fault of the
library.
"""

import argparse
import json
import re
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import architectures
import torch
from torch import Tensor, nn

import ierf
from ierf.attribution.attribute import relevance_pass
from ierf.attribution.conservation import ledger
from ierf.operations import tensors_in
from ierf.rules import Backward, Tape

METHODS = ("srd", "attnlrp")
CACHE = Path(tempfile.gettempdir()) / "ierf-architectures.jsonl"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"


@dataclass(frozen=True)
class Finding:
    """What became of one architecture under one method."""

    architecture: str
    method: str
    outcome: str
    """"works", "refused: …", "WRONG: …", "raw: …" (an exception of somebody else), "slow: …" or "skipped: …"."""
    leak: float | None = None
    """Relevance that named operations keep in all, of the largest amount in the ledger."""
    seconds: float = 0.0


class TooSlowError(Exception):
    """The time of one architecture is up."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """At most so long inside."""

    def stop(*_: Any) -> None:
        raise TooSlowError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def enlivened(net: nn.Module) -> nn.Module:
    """The network with parameters and statistics that are all alike (zeros, ones, layer scales) drawn at random."""
    with torch.no_grad():
        for name, values in [*net.named_parameters(), *net.named_buffers()]:
            statistic = name.endswith(("running_mean", "running_var"))
            if not values.is_floating_point() or not (isinstance(values, nn.Parameter) or statistic):
                continue
            if values.numel() and bool((values == values.flatten()[0]).all()):
                zero = float(values.flatten()[0]) == 0
                values.uniform_(-0.1, 0.1) if zero else values.uniform_(0.8, 1.2)
    return net.eval()


def plain(net: nn.Module, x: Tensor) -> Tensor:
    """The first tensor that the network returns."""
    with torch.no_grad():
        output = net(x.clone())
    return tensors_in(output.to_tuple() if hasattr(output, "to_tuple") else output)[0]


def settled(net: nn.Module, x: Tensor) -> Tensor:
    """The plain output of a network that has one. Raises `IerfError` for one that returns others each time."""
    first, second = plain(net, x), plain(net, x)
    if not torch.equal(first, second):
        raise ierf.IerfError("the network returns other values each time it runs (it masks patches at random)")
    return first


def prepared(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Network, pictures and plain output; in float64 where that runs."""
    torch.manual_seed(0)
    net, x = architectures.make(name)
    net = enlivened(net)
    try:
        wide = x.double()
        return net.double(), wide, settled(net, wide)
    except (RuntimeError, TypeError):
        return net.float(), x, settled(net.float(), x)


def score(y: Tensor) -> Tensor:
    """A number of each sample's output, whatever its shape."""
    flat = y.flatten(1)
    return flat @ torch.linspace(0.5, 1.5, flat.shape[1]).to(flat)


def misplaced(tape: Tape) -> str | None:
    """A map whose channels are followed on another axis than the one on which the next operation takes them."""
    for node in tape.nodes:
        if node.made is not None and node.made.operation in _CHANNELS_FIRST:
            source = tape.nodes[node.made.sources[0]]
            axis = source.axis % source.tensor.ndim
            if source.tensor.ndim == 4 and source.is_map and not source.constant and axis != 1:
                return f"{node.made.operation!r} in {node.place.module!r} takes channels from axis 1, not {axis}"
    return None


_CHANNELS_FIRST = frozenset(
    "conv2d conv_transpose2d batch_norm group_norm instance_norm max_pool2d avg_pool2d interpolate".split()
)


def judged(net: nn.Module, x: Tensor, expected: Tensor, method: str) -> tuple[str, float | None]:
    """The outcome, and the share of relevance that named operations keep."""
    tolerance = 1e-9 if x.dtype == torch.float64 else 1e-4
    target = 0 if expected.ndim == 2 else score
    model = ierf.VisionModel(net)
    with relevance_pass(model, x.clone(), method, {}, backward=Backward(metered=True)) as run:
        found = run.logits.detach()
        if found.shape != expected.shape:
            return f"WRONG: recorded output {tuple(found.shape)}, not {tuple(expected.shape)}", None
        error = float((found - expected).abs().max() / expected.abs().max())
        if not error <= tolerance:
            return f"WRONG: recorded logits are off by {error:.2g}", None
        if method == "srd" and (place := misplaced(run.tape)) is not None:
            return f"WRONG: {place}", None
        start = run.start(target, "raw") if method == "srd" else run.start(target)  # type: ignore[call-arg]
        account = ledger(run, *start)
    options = {"head": "raw"} if method == "srd" else {}
    explain = partial(ierf.attribute, model, target=target, method=method, **options)
    pictures = explain(x.clone())
    beside = explain(torch.cat([x, x.flip(-1)]))[:1]
    amounts = [a for e in account.entries for a in (e.relevance_in, e.relevance_out, *(k.amount for k in e.leaks))]
    scale = max([abs(a) for a in amounts] + [float(pictures.abs().sum()), 1e-30])
    worst = max(account.entries, key=lambda e: abs(e.unexplained))
    leak = abs(account.leaked) / scale
    if not pictures.isfinite().all():
        return "WRONG: the map is not finite", leak
    if abs(worst.unexplained) > 100 * tolerance * scale:
        return f"WRONG: {abs(worst.unexplained) / scale:.2g} unexplained before {worst.layer!r}", leak
    if float((beside - pictures).abs().max()) > 1000 * tolerance * float(pictures.abs().max()):
        return "WRONG: the map of a picture depends on what else is in the batch", leak
    if not pictures.any() and ierf.attribute(model, x.clone(), target=target, method="gradient_x_input").any():
        return "WRONG: a map of zeros", leak
    return "works", leak


def outcome(judge: Callable[[], tuple[str, float | None]]) -> tuple[str, float | None]:
    """What became of it, whatever was raised."""
    try:
        return judge()
    except TooSlowError:
        raise
    except ierf.IerfError as error:
        return f"refused: {error}", None
    except Exception as error:
        return f"raw: {type(error).__name__}: {str(error)[:200]}", None


def examined(name: str, seconds: int) -> list[Finding]:
    """One architecture under every method."""
    began, findings = time.monotonic(), list[Finding]()
    try:
        with limited(seconds):
            try:
                net, x, expected = prepared(name)
            except TooSlowError:
                raise
            except ierf.IerfError as error:
                return [Finding(name, m, f"refused: {error}") for m in METHODS]
            except Exception as error:
                return [Finding(name, m, f"skipped: {type(error).__name__}: {str(error)[:200]}") for m in METHODS]
            for method in METHODS:
                before = time.monotonic()
                found, leak = outcome(lambda m=method: judged(net, x, expected, m))  # type: ignore[misc]
                findings.append(Finding(name, method, found, leak, round(time.monotonic() - before, 2)))
    except TooSlowError:
        spent = round(time.monotonic() - began, 1)
        findings += [Finding(name, m, f"slow: more than {spent:.0f} s") for m in METHODS[len(findings) :]]
    return findings


def known(cache: Path) -> dict[str, list[Finding]]:
    """The latest findings of each architecture."""
    found: dict[str, list[Finding]] = {}
    if cache.exists():
        for line in cache.read_text().splitlines():
            record = json.loads(line)
            found[record["architecture"]] = [Finding(**f) for f in record["findings"]]
    return found


def page(findings: dict[str, list[Finding]]) -> str:
    """The page of the documentation."""
    rows = []
    for name in architectures.NAMES:
        if name in findings and not findings[name][0].outcome.startswith("skipped"):
            cells = [_cell(f) for f in findings[name]]
            rows.append(f"| `{name}` | {' | '.join(cells)} |")
    counts = Counter(f.outcome.partition(":")[0] for name in architectures.NAMES for f in findings.get(name, []))
    summary = ", ".join(
        f"{counts[kind]} {kind}" for kind in ("works", "refused", "slow", "WRONG", "raw") if counts[kind]
    )
    head = PAGE_HEAD.format(count=len(rows), summary=summary)
    return head + "\n".join(["| architecture | SRD | AttnLRP |", "|---|---|---|", *rows, ""])


PAGE_HEAD = """# Architectures

{count} architectures with random weights, explained by SRD and AttnLRP as they are: {summary}
(an architecture counts once for each method).

**works**: the recorded pass gives the network's own output (to 1e-9 in float64; 1e-4 where a network insists on
float32), the [ledger](ledger.md) leaves nothing unexplained, and the map is finite, not zero, and the same beside
another picture. The number is the relevance that the operations named in the ledger keep in all, relative to the
largest amount in the ledger. **refused**: the error says why, and what to do.

Random weights say nothing about how good a map is.

`python scripts/sweep_architectures.py --write` makes this page; it needs timm, transformers and torchvision.

"""


def _cell(finding: Finding) -> str:
    text = finding.outcome.replace("|", "\\|").replace("\n", " ")
    if text == "works" and finding.leak is not None:
        return f"works, keeps {finding.leak:.1%}" if finding.leak > 5e-4 else "works"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression: those architectures, anew")
    parser.add_argument("--failed", action="store_true", help="those that are wrong, raw or slow, anew")
    parser.add_argument("--seconds", type=int, default=60, help="the limit of one architecture")
    parser.add_argument("--minutes", type=float, default=30, help="the limit of this run")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where findings are kept")
    parser.add_argument("--write", action="store_true", help="write docs/architectures.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    found, began = known(arguments.cache), time.monotonic()
    for name in architectures.NAMES:
        again = arguments.only and re.search(arguments.only, name)
        bad = arguments.failed and name in found and any(_faulty(f) for f in found[name])
        fresh = not arguments.only and not arguments.failed and name not in found
        if not (again or bad or fresh) or time.monotonic() - began > 60 * arguments.minutes:
            continue
        found[name] = examined(name, arguments.seconds)
        with arguments.cache.open("a") as file:
            file.write(json.dumps({"architecture": name, "findings": [asdict(f) for f in found[name]]}) + "\n")
        print(name, *(f"{f.method}: {_cell(f)} ({f.seconds} s)" for f in found[name]), sep="\n    ", flush=True)
    shown = [f for name in architectures.NAMES for f in found.get(name, [])]
    print(Counter(f.outcome.partition(":")[0] for f in shown), f"{(time.monotonic() - began) / 60:.1f} minutes")
    if arguments.write:
        PAGE.write_text(page(found))
    return int(any(f.outcome.startswith(("WRONG", "raw")) for f in shown))


def _faulty(finding: Finding) -> bool:
    return finding.outcome.startswith(("WRONG", "raw", "slow", "skipped"))


if __name__ == "__main__":
    sys.exit(main())
