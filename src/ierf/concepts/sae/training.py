"""Training several autoencoders from one stream of PFVs: resumable, data-parallel, metrics as it goes."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from ierf.concepts.sae.checkpoint import Checkpoint, find, save
from ierf.concepts.sae.losses import samples, unexplained
from ierf.concepts.sae.mixing import Position, mixed
from ierf.concepts.sae.rules import Stage
from ierf.concepts.sae.sae import SAE
from ierf.concepts.sae.settings import Training
from ierf.concepts.sae.sources import Source
from ierf.concepts.sae.totals import add_up, ranks, total
from ierf.errors import IerfError
from ierf.store.lock import only_writer
from ierf.store.shard import wait_for_all

Report = Callable[[int, int, "dict[str, Metrics]"], None]
"""Gets the steps done, all steps, and the metrics of the last one, by layer."""


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


def train(
    saes: Mapping[str, SAE],
    source: Source,
    settings: Training,
    out: Path | None = None,
    *,
    save_every: int = 500,
    log_every: int = 50,
    report: Report | None = None,
) -> list[dict[str, Any]]:
    """Train each layer's autoencoder on the layer's PFVs; returns the metrics of every `log_every`-th step.

    With `out`, a checkpoint is kept in it every `save_every` steps. A run that was killed at any moment goes on from
    the last one and ends with the same bits as a run that was not. Under `torch.distributed` each rank has its own
    source; gradients are added up, so n ranks give what one process gives with the n batches together.

    Raises `IerfError` if the folder holds a checkpoint of another run, or has a writer, or a loss is not finite.
    """
    for name, sae in saes.items():
        if source.channels[name] != sae.n_features:
            raise IerfError(f"{name!r} has {source.channels[name]} channels, its autoencoder {sae.n_features}")
    run = Run(saes, settings)
    identity = {
        "saes": {name: sae.config for name, sae in saes.items()},
        "training": asdict(settings),
        "ranks": ranks(),
        "source": source.identity,
    }
    with nullcontext() if out is None or _rank() else only_writer(out):
        begun = None if out is None else find(out, identity)
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
            if out is not None and (run.step % save_every == 0 or run.step == run.steps):
                run.keep(out, position, history, identity)
        return history


class Run:
    """What a run changes from step to step."""

    def __init__(self, saes: Mapping[str, SAE], settings: Training) -> None:
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

    def _layer(self, name: str, sae: SAE, x: Float[Tensor, "N C"]) -> list[Float[Tensor, ""]]:
        dead = self.silent[name] >= self.settings.silence
        stage = Stage(self.step, self.settings.ramp(self.step, self.steps), dead)
        half = self.settings.compute == "bfloat16"
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
            save(out, Checkpoint(self.step, tuple(positions), self._tensors(), history), identity)
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


def _named(sae: SAE) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in sae.named_parameters() if p.requires_grad]


def _parameters(sae: SAE) -> list[torch.nn.Parameter]:
    return [parameter for _, parameter in _named(sae)]


def _fused(device: torch.device) -> bool:
    return device.type in ("cpu", "cuda")


def _where(moment: str, parameter: Tensor) -> torch.device:
    return parameter.device if moment != "step" or _fused(parameter.device) else torch.device("cpu")


def _rank() -> int:
    return distributed.get_rank() if ranks() > 1 else 0
