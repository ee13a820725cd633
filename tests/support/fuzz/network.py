"""Random networks: programs of named operations that become the source of a `forward`.

A program is a list of words such as `"conv:17"`: an operation and the seed of its weights and of its choices. Each word
is written as lines of Python on the map `y` (N, C, H, W), in the spelling under test, and, where there is one, in
another spelling of the same function that changes nothing in place (its twin). So a network is its own description, and
a failing one can be shrunk by leaving out words.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.utils.checkpoint
from support.fuzz.lines import Draw, Lines
from support.fuzz.spellings import CHANGED
from support.fuzz.words import FREQUENCIES, HEADS, JUDGED, OPERATIONS
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

Program = tuple[str, ...]
Reached = Literal["all", "some", "none"]
_NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)


class Squared(Function):
    """A function whose way back nobody sees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


NAMESPACE: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "Squared": Squared}


class Fuzzed(nn.Module):
    """A network with the given members, whose `forward` is compiled from source."""

    def __init__(self, members: dict[str, Any], source: str) -> None:
        super().__init__()
        for name, member in members.items():
            if isinstance(member, nn.Module | nn.Parameter):
                setattr(self, name, member)
            else:
                self.register_buffer(name, member)
        self.source = source
        namespace: dict[str, Any] = dict(NAMESPACE)
        exec(compile(source, "<fuzzed>", "exec"), namespace)
        self._body = namespace["forward"]

    def forward(self, x: Tensor) -> Any:
        return self._body(self, x)


@dataclass(frozen=True)
class Built:
    """A program as a network and its pictures, and what else is known of it."""

    program: Program
    net: Fuzzed
    x: Tensor
    twin: Fuzzed | None
    """The same function of the same weights, written without in-place operations; None where that is not known."""
    members: dict[str, str]
    """The expressions that make its weights."""
    by_hand: tuple[str, ...] | None = None
    """The program in the words of an oracle (`oracles`); None where its rules leave open what is right."""

    def __str__(self) -> str:
        made = [f"self.{name} = {expression}" for name, expression in self.members.items()]
        return "\n".join([f"{list(self.program)} on {tuple(self.x.shape)}", *made, self.net.source])


@dataclass
class _Writer:
    """The network so far: its lines in each spelling, and the values that they have on the pictures."""

    x: Tensor
    lines: list[str] = field(default_factory=lambda: ["y = x"])
    twin: list[str] | None = field(default_factory=lambda: ["y = x"])
    by_hand: list[str] | None = field(default_factory=list)
    expressions: dict[str, str] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    saved: dict[str, Reached] = field(default_factory=dict)
    """Earlier maps by name, and what of them an in-place operation on `y` changes."""
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {"x": self.x.clone(), "y": self.x.clone(), "self": self} | NAMESPACE

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["members"][name]

    def write(self, k: int, operation: Callable[[Draw], Lines | None], seed: int) -> bool:
        """Append one operation; False where it does not fit the map."""
        maps = {name: tuple(self.values[name].shape) for name in self.saved}
        written = operation(Draw(k, random.Random(seed), tuple(self.values["y"].shape), maps))
        if written is None:
            return False
        for n, (name, expression) in enumerate(written.members.items()):
            self.expressions[name], self.members[name] = expression, made(expression, 10 * seed + n)
        before = self.values["y"]
        try:
            exec("\n".join(written.lines), self.values)
        except (RuntimeError, IndexError, ValueError):
            self.values["y"] = before
            return False
        self.lines += written.lines
        if self.by_hand is not None:
            self.by_hand = None if written.by_hand is None else self.by_hand + list(written.by_hand)
        self._write_twin(written, before)
        self.saved |= dict.fromkeys(written.saves, "all")
        return True

    def _write_twin(self, written: Lines, before: Tensor) -> None:
        """The other spelling; what shares memory with a map that is changed in place is changed as well."""
        after, twin = self.values["y"], written.twin
        if twin is None and not written.mutates:
            twin = written.lines
        if after is before and twin == ("y = y * 1.0",):
            twin = ()
        if written.mutates and "some" in self.saved.values():
            twin = None
        if self.twin is not None and twin is not None:
            changed = [f"{name} = y" for name, reached in self.saved.items() if reached == "all" and written.mutates]
            at = twin.index(CHANGED) if CHANGED in twin else len(twin)
            twin = (*twin[:at], *changed, *twin[at + 1 :])
        self.twin = None if self.twin is None or twin is None else [*self.twin, *twin]
        if after.untyped_storage().data_ptr() != before.untyped_storage().data_ptr():
            self.saved = dict.fromkeys(self.saved, "none")
        elif not written.mutates and (after.shape != before.shape or not torch.equal(after, before)):
            self.saved = {name: "some" if reached == "all" else reached for name, reached in self.saved.items()}


def made(expression: str, seed: int) -> Any:
    """The weights that an expression names, drawn from `seed`; statistics and scales of norms are drawn too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        member = eval(expression, dict(NAMESPACE))
        if isinstance(member, nn.Module):
            member = member.double().eval()
            for module in member.modules():
                if isinstance(module, _NORMS):
                    for name, values in [*module.named_parameters(), *module.named_buffers()]:
                        if values.is_floating_point():
                            values.data.uniform_(0.5, 1.5) if "bias" not in name and "mean" not in name else (
                                values.data.uniform_(-0.5, 0.5)
                            )
        elif member.is_floating_point():
            member = nn.Parameter(member.double()) if isinstance(member, nn.Parameter) else member.double()
    return member


def build(program: Sequence[str]) -> Built:
    """The network of a program; words that do not fit the map at their place are left out of it.

    The first word is the pictures', `"input:<seed>"`; the last one is a head.
    """
    rng = random.Random(int(program[0].partition(":")[2]))
    shape = (rng.randint(1, 3), rng.randint(2, 4), rng.randint(6, 12), rng.randint(6, 12))
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    writer, kept = _Writer(x), [program[0]]
    with torch.no_grad():
        for k, word in enumerate(program[1:], 1):
            name, _, seed = word.partition(":")
            if name in HEADS and not writer.write(k, HEADS[name], int(seed)):
                word = f"pooled:{seed}"
                writer.write(k, HEADS["pooled"], int(seed))
            if name in HEADS or writer.write(k, OPERATIONS[name], int(seed)):
                kept.append(word)
    twin = None if writer.twin is None else _running(Fuzzed(writer.members, source(writer.twin)).eval(), x)
    by_hand = None if writer.by_hand is None else tuple(writer.by_hand)
    net = Fuzzed(writer.members, source(writer.lines)).eval()
    return Built(tuple(kept), net, x, twin, writer.expressions, by_hand)


def _running(net: Fuzzed, x: Tensor) -> Fuzzed | None:
    """The network if its views fit the memory that they meet."""
    try:
        net(x.clone())
    except RuntimeError:
        return None
    return net


def source(lines: Sequence[str]) -> str:
    return "\n    ".join(["def forward(self, x):", *lines, "return y"])


def usable(built: Built) -> bool:
    """Whether the network computes numbers."""
    with torch.no_grad():
        return bool(built.net(built.x.clone()).isfinite().all())


def programs(count: int, seed: int, longest: int = 8) -> Iterator[Program]:
    """`count` random programs: pictures, up to `longest` operations, a head; every other one in the oracles' words."""
    rng = random.Random(seed)
    for k in range(count):
        names, heads = (list(JUDGED), ["pooled"]) if k % 2 else (list(OPERATIONS), list(HEADS))
        drawn = rng.choices(names, [FREQUENCIES[name] for name in names], k=rng.randint(1, longest))
        words = ["input", *drawn, rng.choice(heads)]
        yield tuple(f"{word}:{rng.randrange(10**4)}" for word in words)


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A program that still fails, and of whose words (but pictures and head) none can be left out alone."""
    k = 1
    while k < len(program) - 1:
        shorter = program[:k] + program[k + 1 :]
        if fails(shorter):
            program = shorter
        else:
            k += 1
    return program
