"""Training several autoencoders from one stream of PFVs: resumable, data-parallel, metrics as it goes."""

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn

from ierf.concepts.sae.losses import add_up, ranks, samples, total, unexplained
from ierf.concepts.sae.rule import Objective, Stage
from ierf.concepts.sae.sources import Position, Source, mixed
from ierf.deprecated import renamed
from ierf.errors import IerfError, UnknownNameError
from ierf.progress import Progress
from ierf.store import Dtype, check_dtype, differences, only_writer, wait_for_all, write
from ierf.typed import FieldError, parsed, recorded, typed

Schedule = Literal["cosine", "constant"]

_DEAD_AFTER = 10_000_000
_RAMP = 0.05
"""Share of the steps in which sparsity penalties rise to their value."""
CHECKPOINT = "checkpoint.safetensors"


@renamed(compute="dtype")
@dataclass(frozen=True)
class Training:
    """Defaults are those of Gao 2024 (arXiv 2406.04093), scaled down for short runs.

    Args:
        samples: PFVs to see in all, repeats counted.
        batch: PFVs per step, on each rank.
        lr: learning rate of Adam; None: 2·10⁻⁴ / √(K/2¹⁴).
        warmup: steps in which it rises to that; at most a tenth of all steps.
        schedule: "cosine" down to 0, or "constant".
        dead_after: a latent is dead if it was silent for so many samples; None: 10⁷, at most a tenth of `samples`.
        buffer: PFVs that are mixed with each other.
        dtype: "bfloat16" runs matrix products in bfloat16.
        seed: of the order of samples.
    """

    samples: int = 1_000_000
    batch: int = 1024
    lr: float | None = None
    warmup: int = 1000
    schedule: Schedule = "cosine"
    dead_after: int | None = None
    buffer: int = 1 << 17
    dtype: Dtype = field(default="float32", metadata={"in files": "compute"})
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise UnknownNameError("schedule", self.schedule, get_args(Schedule))
        check_dtype(self.dtype)
        for name in ("samples", "batch", "buffer"):
            if getattr(self, name) < 1:
                raise IerfError(f"{name} is at least 1, not {getattr(self, name)}")
        if self.warmup < 0 or (self.lr is not None and self.lr <= 0):
            raise IerfError(f"the learning rate is positive, its warm-up not negative; got {self.lr}, {self.warmup}")

    def steps(self, ranks: int) -> int:
        """Steps of all ranks together until all samples are seen."""
        return -(-self.samples // (self.batch * ranks))

    @property
    def silence(self) -> int:
        """After how many samples a latent counts as dead."""
        return self.dead_after if self.dead_after is not None else min(_DEAD_AFTER, max(1, self.samples // 10))

    def rate(self, step: int, steps: int, n_latents: int) -> float:
        """The learning rate of a step, counted from 0: linear warm-up, then the schedule."""
        peak = self.lr if self.lr is not None else 2e-4 / math.sqrt(n_latents / 2**14)
        warmup = min(self.warmup, steps // 10)
        if step < warmup:
            return peak * (step + 1) / warmup
        if self.schedule == "constant":
            return peak
        return peak * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2

    def ramp(self, step: int, steps: int) -> float:
        """What sparsity penalties are multiplied with in a step."""
        return min(1.0, (step + 1) / max(1.0, _RAMP * steps))


@dataclass(frozen=True)
class Checkpoint:
    """Where a run is: after `step` steps, with these tensors (weights, moments of Adam, samples of silence)."""

    step: int
    positions: tuple[Position, ...]
    """Of the mixing buffers of all ranks."""
    tensors: Mapping[str, Tensor]
    history: list[dict[str, Any]] = field(default_factory=list)
    """Metrics so far."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, run: Mapping[str, Any]) -> None:
    """Write a checkpoint over the last one, all of it or nothing; `run` says what it belongs to."""
    state = {
        "step": checkpoint.step,
        "positions": [asdict(position) for position in checkpoint.positions],
        "history": checkpoint.history,
        "run": run,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write(folder / CHECKPOINT, safetensors.torch.save(tensors, {"state": json.dumps(state)}))


def find_checkpoint(folder: Path, run: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint in a folder, on the CPU, None if there is none. Raises `IerfError` for another run's."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = parsed(file.metadata()["state"])
            positions = tuple(typed(one, Position) for one in state["positions"])
            step, history, begun = state["step"], state["history"], state["run"]
            if type(step) is not int or step < 0:
                raise FieldError(f"step is {step!r}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise IerfError(f"{str(path)!r} is no checkpoint of a training run: {error}; remove it to begin anew") from None
    if differs := list(differences(begun, json.loads(json.dumps(run)))):
        raise IerfError(
            f"the run in {str(folder)!r} was begun otherwise: {'; '.join(differs)}; give the same or another folder"
        )
    return Checkpoint(step, positions, tensors, history)


Report = Callable[[int, int, "dict[str, Metrics]"], None]
"""Gets the steps done, all steps, and the metrics of the last one, by layer."""


class Trainable(Protocol):
    """What is trained: a `SAE` for one."""

    n_features: int | None
    n_latents: int
    decoder: Tensor
    scale: Tensor
    """What its objective multiplies the input by."""

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the weights, as JSON can hold it."""

    def begin(self, x: Float[Tensor, "N C"]) -> None:
        """Fix what a first batch decides."""

    def objective(self, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        """The loss of a batch."""

    def before_step(self) -> None:
        """Between the gradients and the step."""

    def after_step(self) -> None:
        """Behind the step."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is learnt, or held."""

    def state_dict(self) -> dict[str, Any]:
        """Parameters and buffers."""

    def load_state_dict(self, state_dict: Mapping[str, Any], /) -> Any:
        """Put them back."""


@dataclass(frozen=True)
class Metrics:
    """Of one step, over the batch of all ranks."""

    loss: float
    fvu: float
    """Share of variance that the reconstruction leaves unexplained."""
    l0: float
    """Active latents per sample."""
    dead: float
    """Share of latents that were silent for `Training.silence` samples."""

    def __str__(self) -> str:
        return f"FVU {self.fvu:.3f}, L0 {self.l0:.1f}, dead {self.dead:.0%}"


def train(
    saes: Mapping[str, Trainable],
    source: Source,
    settings: Training,
    out: Path | None = None,
    *,
    save_every: int = 500,
    log_every: int = 50,
    progress: Progress | None = None,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Train each layer's autoencoder on the layer's PFVs; returns the metrics of every `log_every`-th step.

    With `out`, a checkpoint is kept in it every `save_every` steps. A run that was killed at any moment goes on from
    the last one and ends with the same bits as a run that was not. Under `torch.distributed` each rank has its own
    source; gradients are added up, so n ranks give what one process gives with the n batches together.

    Args:
        progress: called behind each step; its stage is the step's metrics in words, see `ierf.progress.Progress`.
        report: what `progress` was; called with the step, the number of steps and the metrics.

    Raises `IerfError` if the folder holds a checkpoint of another run, or has a writer, or a loss is not finite.
    """
    if report is not None:
        warnings.warn("report= is called progress= now, see ierf.progress", DeprecationWarning, stacklevel=2)
    for name, sae in saes.items():
        if source.channels[name] != sae.n_features:
            raise IerfError(f"{name!r} has {source.channels[name]} channels, its autoencoder {sae.n_features}")
    run = Run(saes, settings)
    identity = {
        "saes": {name: sae.config for name, sae in saes.items()},
        "training": recorded(settings),
        "ranks": ranks(),
        "source": source.identity,
    }
    with nullcontext() if out is None or _rank() else only_writer(out):
        begun = None if out is None else find_checkpoint(out, identity)
        position, history = Position(), []
        if begun is not None:
            run.restore(begun)
            position, history = begun.positions[_rank()], begun.history
        # Blocks of more rows than there are would hold the same ones again, chunk by chunk.
        block = min(settings.buffer, getattr(source, "rows", None) or settings.buffer)
        stream = mixed(source.chunks, block, settings.batch, settings.seed, position)
        while run.step < run.steps:
            batch, position = next(stream)
            found = run.advance(batch)
            if run.step % log_every == 0 or run.step == run.steps:
                history.append({"step": run.step, **{name: asdict(one) for name, one in found().items()}})
            if report is not None:
                report(run.step, run.steps, found())
            if progress is not None:
                words = (f"{name}: {one}" if name else str(one) for name, one in found().items())
                progress("; ".join(words), run.step, run.steps)
            if out is not None and (run.step % save_every == 0 or run.step == run.steps):
                run.keep(out, position, history, identity)
        return history


class Run:
    """What a run changes from step to step."""

    def __init__(self, saes: Mapping[str, Trainable], settings: Training) -> None:
        self.saes, self.settings, self.step = saes, settings, 0
        self.steps = settings.steps(ranks())
        self.device = next(iter(saes.values())).decoder.device
        self.silent: dict[str, Int[Tensor, " K"]] = {
            name: torch.zeros(sae.n_latents, dtype=torch.long, device=self.device) for name, sae in saes.items()
        }
        self.optimizers = {
            name: torch.optim.Adam(_parameters(sae), fused=_fused(self.device)) for name, sae in saes.items()
        }

    def advance(self, batch: Mapping[str, Float[Tensor, "N C"]]) -> Callable[[], dict[str, Metrics]]:
        """One step of every layer; the metrics are read from the device when they are asked for."""
        readings = {}
        for name, sae in self.saes.items():
            x = batch[name].to(sae.decoder)
            if self.step == 0:
                sae.begin(x)
            readings[name] = self._layer(name, sae, x)
        self.step += 1
        return lambda: {name: Metrics(*torch.stack(found).tolist()) for name, found in readings.items()}

    def _layer(self, name: str, sae: Trainable, x: Float[Tensor, "N C"]) -> list[Float[Tensor, ""]]:
        dead = self.silent[name] >= self.settings.silence
        stage = Stage(self.step, self.settings.ramp(self.step, self.steps), dead)
        half = self.settings.dtype == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            found = sae.objective(x, stage)
        parameters, optimizer = _parameters(sae), self.optimizers[name]
        optimizer.zero_grad()
        found.loss.backward()  # type: ignore[no-untyped-call]
        add_up([p.grad for p in parameters if p.grad is not None])
        sae.before_step()
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step, self.steps, sae.n_latents)
        optimizer.step()
        sae.after_step()
        counts, n = total(found.counts), samples(x)
        self.silent[name] = torch.where(counts > 0, 0, self.silent[name] + n.long())
        if not bool(torch.isfinite(found.loss)):
            raise IerfError(
                f"the loss of {name or 'the autoencoder'} is {float(found.loss.detach())} in step {self.step + 1}; "
                "a smaller learning rate (lr) may help, or leave out PFVs with NaN"
            )
        with torch.no_grad():
            fvu = unexplained(x * sae.scale, found.x_hat.to(x))
        return [found.loss.detach().float(), fvu.float(), counts.sum() / n, dead.float().mean()]

    def keep(self, out: Path, position: Position, history: list[dict[str, Any]], identity: Mapping[str, Any]) -> None:
        positions: list[Position] = [position]
        if ranks() > 1:
            positions = [Position()] * ranks()
            distributed.all_gather_object(positions, position)
        if _rank() == 0:
            save_checkpoint(out, Checkpoint(self.step, tuple(positions), self._tensors(), history), identity)
        wait_for_all()

    def restore(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        for name, sae in self.saes.items():
            prefix = f"{name}/sae/"
            sae.load_state_dict(
                {key.removeprefix(prefix): t for key, t in checkpoint.tensors.items() if key.startswith(prefix)}
            )
            self.silent[name] = checkpoint.tensors[f"{name}/silent"].to(self.device)
            for key, parameter in _named(sae):
                self.optimizers[name].state[parameter] = {
                    moment: checkpoint.tensors[f"{name}/adam/{key}/{moment}"].to(_where(moment, parameter))
                    for moment in _MOMENTS
                }

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for name, sae in self.saes.items():
            tensors |= {f"{name}/sae/{key}": value for key, value in sae.state_dict().items()}
            tensors[f"{name}/silent"] = self.silent[name]
            for key, parameter in _named(sae):
                state = self.optimizers[name].state[parameter]
                tensors |= {f"{name}/adam/{key}/{moment}": state[moment] for moment in _MOMENTS}
        return tensors


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _named(sae: Trainable) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in sae.named_parameters() if p.requires_grad]


def _parameters(sae: Trainable) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in _named(sae)]


def _fused(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")


def _where(moment: str, parameter: Tensor) -> torch.device:
    return parameter.device if moment != "step" or _fused(parameter.device) else torch.device("cpu")


def _rank() -> int:
    return distributed.get_rank() if ranks() > 1 else 0
