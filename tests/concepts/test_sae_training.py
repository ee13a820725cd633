"""Training: schedules, dead latents, checkpoints, several processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ierf.concepts.sae import SAE, InMemory, Training, train
from ierf.concepts.sae.sources import Rows
from ierf.concepts.sae.training import Run
from ierf.errors import IerfError

QUICK = Training(samples=2000, batch=50, buffer=200, warmup=10)


def vectors(n: int = 300, channels: int = 6) -> Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(0)) + 3


def begun(kind: str = "topk", **options: Any) -> SAE:
    return SAE(kind, 6, 24, 3, seed=1, **options)


def test_the_learning_rate_rises_and_falls() -> None:
    settings = Training(lr=1.0, warmup=10)
    rates = [settings.rate(step, 210, 1024) for step in range(210)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[110] == pytest.approx(0.5)
    assert rates[-1] < 1e-3
    assert Training(lr=1.0, warmup=10, schedule="constant").rate(209, 210, 1024) == 1
    assert Training(warmup=0).rate(0, 10, 2**14) == 2e-4
    assert Training(warmup=0).rate(0, 10, 2**12) == 4e-4
    assert Training(lr=1.0).rate(1, 20, 1) == 1.0
    assert [settings.ramp(step, 100) for step in (0, 1, 4, 50)] == [0.2, 0.4, 1.0, 1.0]


def test_samples_count_for_dead_latents_whatever_the_batch() -> None:
    assert Training(samples=10**9).silence == 10**7
    assert Training(samples=5000).silence == 500
    for batch in (10, 40):
        run = Run({"": begun(aux=0.0)}, Training(samples=400, batch=batch, dead_after=100, lr=1e-9))
        run.saes[""].encoder_bias.data[:4] = -1e6
        dead = [run.advance({"": vectors(batch)})()[""].dead * 24 for _ in range(200 // batch)]
        first = -(-100 // batch)
        assert dead[first - 1] == 0
        assert dead[first] >= 4
        assert bool((run.silent[""][:4] == 200).all())


@pytest.mark.parametrize("aux", [0.0, 1 / 32])
def test_a_dead_latent_learns_what_the_others_leave(aux: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100, 3, generator=generator) * torch.tensor([1.0, 0.2, 0.0]) + torch.tensor([2.0, 0.3, 0.0])
    sae = SAE("topk", 3, 2, 1, aux=aux, shift=torch.zeros(3))
    with torch.no_grad():
        for weights in (sae.encoder, sae.decoder):
            weights.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]))
    sae.decoder_bias.requires_grad_(False)
    run = Run({"": sae}, Training(samples=20_000, batch=100, dead_after=100, lr=2e-2))
    for _ in range(200):
        run.advance({"": x})
    assert run.silent[""].tolist() == [0, 20_000]
    if aux:
        assert sae.decoder[1, 1].item() > 0.75
        assert not torch.equal(sae.encoder[1], torch.tensor([0.0, 0.6, 0.8]))
    else:
        torch.testing.assert_close(sae.decoder[1].detach(), torch.tensor([0.0, 0.6, 0.8]))
        assert sae.encoder[1, 1].item() == pytest.approx(0.6)


@pytest.mark.parametrize("kind", ["topk", "matryoshka", "jumprelu"])
def test_a_run_that_goes_on_ends_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    options: dict[str, Any] = {"prefixes": "random"} if kind == "matryoshka" else {}
    whole, parts = begun(kind, **options), begun(kind, **options)
    history = train({"": whole}, InMemory(vectors(), 1), QUICK, log_every=4)

    class Interrupted(InMemory):
        def chunks(self, start: int) -> Iterator[Rows]:
            for i, chunk in enumerate(super().chunks(start)):
                if i == 4:
                    raise KeyboardInterrupt
                yield chunk

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train({"": parts}, Interrupted(vectors(), 1), QUICK, tmp_path, save_every=3, log_every=4)
        parts = begun(kind, **options)
    resumed = train({"": parts}, InMemory(vectors(), 1), QUICK, tmp_path, save_every=3, log_every=4)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    assert resumed == history
    assert [one["step"] for one in history] == list(range(4, 41, 4))
    assert history[-1][""]["fvu"] < history[0][""]["fvu"]
    again = begun(kind, **options)
    train({"": again}, InMemory(vectors(), 1), QUICK, tmp_path)
    assert torch.equal(again.decoder, whole.decoder)


def test_layers_do_not_disturb_each_other() -> None:
    class Two(InMemory):
        def __init__(self) -> None:
            super().__init__(vectors(), 1)
            self.channels = {"a": 6, "b": 6}

        def chunks(self, start: int) -> Iterator[Rows]:
            yield from ({"a": chunk[""], "b": chunk[""].flip(1)} for chunk in super().chunks(start))

    alone, a, b = begun(), begun(), begun("gated")
    train({"": alone}, InMemory(vectors(), 1), QUICK)
    train({"a": a, "b": b}, Two(), QUICK)
    assert torch.equal(alone.decoder, a.decoder)
    assert torch.equal(alone.encoder, a.encoder)


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    train({"": begun()}, InMemory(vectors(), 1), QUICK, tmp_path)
    with pytest.raises(IerfError, match="kind is topk there, batchtopk here"):
        train({"": begun("batchtopk")}, InMemory(vectors(), 1), QUICK, tmp_path)
    with pytest.raises(IerfError, match=r"training\.samples is 2000 there, 4000 here"):
        train({"": begun()}, InMemory(vectors(), 1), Training(4000, 50, buffer=200, warmup=10), tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(IerfError, match="no checkpoint"):
        train({"": begun()}, InMemory(vectors(), 1), QUICK, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(IerfError, match="in step 1"):
        train({"": begun()}, InMemory(vectors() * torch.inf, 1), QUICK)


def test_bfloat16_is_near_float32() -> None:
    one, other = begun(), begun()
    train({"": one}, InMemory(vectors(), 1), QUICK)
    train({"": other}, InMemory(vectors(), 1), Training(2000, 50, buffer=200, warmup=10, dtype="bfloat16"))
    assert not torch.equal(one.decoder, other.decoder)
    torch.testing.assert_close(other.decoder, one.decoder, atol=0.1, rtol=0.1)


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {folder!r})
import test_sae_training as shared
torch.set_num_threads(1)
shared.{function}(*sys.argv[1:])
"""


def run_killed(out: str) -> None:
    """A run that saves after every step, for `kill -9`."""
    train({"": begun()}, InMemory(vectors(), 1), Training(100_000, 50, buffer=200), Path(out), save_every=1)


def process(function: str, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
    script = SCRIPT.format(folder=str(Path(__file__).parent), function=function)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", **env}
    )


def test_a_killed_run_leaves_a_checkpoint_that_works(tmp_path: Path) -> None:
    child = process("run_killed", str(tmp_path / "k"))
    while not (tmp_path / "k/checkpoint.safetensors").exists() and child.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    settings = Training(100_000, 50, buffer=200)
    whole, parts, steps = Run({"": begun()}, settings), begun(), []

    def stop(stage: str, step: int, total: int) -> None:
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train({"": parts}, InMemory(vectors(), 1), settings, tmp_path / "k", progress=stop)
    assert steps[0] > 1
    from ierf.concepts.sae import mixed

    stream = mixed(InMemory(vectors(), 1).chunks, 200, 50, 0)
    for _ in range(steps[-1]):
        whole.advance(next(stream)[0])
    assert torch.equal(whole.saes[""].decoder, parts.decoder)
    assert torch.equal(whole.saes[""].encoder, parts.encoder)


class Fixed:
    """The batches of one rank, or those of all ranks behind one another."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.channels, self.identity, self._ranks = {"": 6}, {"ranks": "fixed"}, ranks

    def chunks(self, start: int) -> Iterator[Rows]:
        """Chunks of one batch per rank; the buffer takes each batch whole."""
        while True:
            yield {"": torch.cat([self.batch(start, rank) for rank in self._ranks])}
            start += 1

    @staticmethod
    def batch(step: int, rank: int) -> Tensor:
        return torch.randn(40, 6, generator=torch.Generator().manual_seed(10 * step + rank)) + rank


KINDS = ("topk", "batchtopk", "matryoshka", "jumprelu", "gated", "l1")


def run_rank(port: str, rank: str, out: str) -> None:
    """One of two processes: a run of every kind."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=rank, WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo")
    for kind in KINDS:
        run = Run({"": begun(kind)}, Training(2 * 40 * 8, 40, dead_after=160, lr=1e-2))
        metrics = [run.advance({"": Fixed.batch(step, int(rank))})()[""] for step in range(8)]
        if rank == "0":
            torch.save({"state": run.saes[""].state_dict(), "fvu": metrics[-1].fvu}, f"{out}/{kind}.pt")
    saved = begun()
    settings = Training(2 * 40 * 6, 40, buffer=80)
    train({"": saved}, Fixed((int(rank),)), settings, Path(out) / "run", save_every=2)
    resumed = begun()
    train({"": resumed}, Fixed((int(rank),)), settings, Path(out) / "run")
    assert torch.equal(saved.decoder, resumed.decoder)
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_both_batches(tmp_path: Path) -> None:
    port = str(20000 + os.getpid() % 20000)
    children = [process("run_rank", port, str(rank), str(tmp_path)) for rank in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    for kind in KINDS:
        run = Run({"": begun(kind)}, Training(2 * 40 * 8, 80, dead_after=160, lr=1e-2))
        for step in range(8):
            metrics = run.advance({"": torch.cat([Fixed.batch(step, rank) for rank in range(2)])})()[""]
        found = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
        assert found["fvu"] == pytest.approx(metrics.fvu, rel=1e-3), kind
        for name, tensor in run.saes[""].state_dict().items():
            torch.testing.assert_close(found["state"][name], tensor, rtol=1e-3, atol=2e-4, msg=f"{kind} {name}")
