"""Sparse autoencoders of every kind (arXiv 2605.00474, Eq. 8) behind one interface, which is that of an extractor."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ierf.concepts.extractor import Estimator, Shift, Vectors, as_vectors, describe_shift, shift_vector
from ierf.concepts.sae.foreign import Foreign, load_foreign, understood
from ierf.concepts.sae.losses import total
from ierf.concepts.sae.rule import ALL, Objective, Rule, Stage, Weights
from ierf.concepts.sae.saving import CONFIG, WEIGHTS, fitting, is_saved, read_config, read_state, save
from ierf.concepts.sae.sources import InMemory
from ierf.concepts.sae.training import Training, train
from ierf.concepts.sae.variants import RULES
from ierf.errors import IerfError, UnknownNameError
from ierf.files import missing
from ierf.typed import recorded, typed

K = 32


class SAE(nn.Module, Estimator):
    """z = σ(s·W_e (x − b_in) + b_e)/s, x̂ = z W_d + shift: X ≈ `transform(X) @ components_ + shift_`.

    s is fixed by the first batch, so that s·x has the mean square 1 per channel: the numbers in the kinds' losses
    (λ, ε, thresholds) and the learning rate then mean the same for every layer.

    Args:
        kind: "l1", "topk", "batchtopk", "jumprelu", "gated" or "matryoshka"; see `ierf.concepts.sae.variants`.
        n_features: channels C; None: those of what it is fitted to.
        n_latents: latents K.
        k: active latents: exactly so many (topk), on average (batchtopk, matryoshka), or what is aimed at (jumprelu).
            "l1" and "gated" go by their option `lam` instead.
        seed: of the first weights and of the order of samples.
        shift: what the decoder bias begins as: a vector, or the mean of the first batch ("mean", None).
        training: how long and how: a `Training`, or its arguments by name.
        options: of the kind.
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    scale: Tensor

    def __init__(
        self,
        kind: str = "topk",
        n_features: int | None = None,
        n_latents: int = 1024,
        k: int = K,
        *,
        seed: int = 0,
        shift: Shift = None,
        training: Training | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if kind not in RULES:
            raise UnknownNameError("kind of sparse autoencoder", kind, RULES)
        known = [name for name, p in inspect.signature(RULES[kind]).parameters.items() if p.kind is p.KEYWORD_ONLY]
        for name in options:
            if name not in known:
                raise UnknownNameError(f"option of {kind!r} autoencoders", name, known)
        if n_latents < 1 or (n_features is not None and n_features < 1):
            raise IerfError(f"an autoencoder has channels and latents; got {n_features} and {n_latents}")
        self.kind, self.n_features, self.n_latents, self.k, self.seed = kind, n_features, n_latents, k, seed
        self.shift, self.options = shift, options
        self._given = {"n_features": n_features, "training": training}
        self.schedule = training if isinstance(training, Training) else Training(**(training or {}))
        self.about: dict[str, Any] = {}
        """Where the training data came from, as JSON can hold it."""
        if n_features is not None:
            self._build(n_features)

    def __repr__(self) -> str:
        return f"SAE({self.kind!r}, n_features={self.n_features}, n_latents={self.n_latents}, k={self.k})"

    @property
    def config(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "name": f"sae_{self.kind}",
            "kind": self.kind,
            "n_features": self.n_features,
            "n_latents": self.n_latents,
            "k": self.k,
            "seed": self.seed,
            "shift": describe_shift(self.shift),
            "options": dict(self.options),
            "training": recorded(self.schedule),
            "about": self.about,
        }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments that it was made with, the kind's options among them."""
        plain = {name: getattr(self, name) for name in ("kind", "n_latents", "k", "seed", "shift")}
        return {**plain, **self._given, **self.options}

    def set_params(self, **params: Any) -> Self:
        """Change some arguments; it is as it was before `fit` then. Raises `UnknownNameError` for others."""
        SAE.__init__(self, **{**self.get_params(), **params})
        return self

    @property
    def components_(self) -> Float[Tensor, "K C"]:
        """The decoder's columns as rows: a latent's direction."""
        return self._built().decoder.detach()

    @property
    def shift_(self) -> Float[Tensor, " C"]:
        """The decoder's bias."""
        return (self._built().decoder_bias / self.scale).detach()

    @property
    def weights(self) -> Weights:
        """The weights as the rules take them, for inputs times `scale`."""
        built = self._built()
        bias = {"decoder": built.decoder_bias, "own": getattr(built, "input_bias", None), "none": None}
        return Weights(built.encoder, built.encoder_bias, bias[self.rule.input_bias], built.decoder, built.decoder_bias)

    def fit(self, x: Vectors, y: object = None) -> Self:
        """Train on PFVs in memory, from the first weights on. The schedule is `training`."""
        vectors = as_vectors(x)
        if self._given["n_features"] not in (None, vectors.shape[1]):
            raise IerfError(f"this autoencoder has {self.n_features} channels, the PFVs have {vectors.shape[1]}")
        self._build(vectors.shape[1])
        self.to(vectors)
        train({"": self}, InMemory(vectors, self.seed), self.schedule)
        return self

    @torch.no_grad()
    def transform(self, x: Vectors) -> Float[Tensor, "N K"]:
        """The codes, on the device of what came in."""
        vectors = as_vectors(x)
        return self.encode(vectors.to(self._built().decoder)).to(vectors.device)

    def encode(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """The same with gradients; no sample's codes depend on others."""
        weights, scaled = self.weights, self._scaled(x)
        return self.rule.codes(weights, scaled) / self.scale

    def decode(self, codes: Float[Tensor, "N K"]) -> Float[Tensor, "N C"]:
        return codes @ self._built().decoder + self.decoder_bias / self.scale

    def forward(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        """The reconstruction."""
        return self.decode(self.encode(x))

    def pre_activations(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N K"]:
        """W_e (x − b_in) + b_e in units of x, before anything is set to 0; of "gated" those of the gates."""
        return self.weights.pre(self._scaled(x)) / self.scale

    def activation(self, pre: Float[Tensor, "N k"], latents: Int[Tensor, " k"] | slice = ALL) -> Float[Tensor, "N k"]:
        """The codes of pre-activations; of some latents only where `rule.pointwise`."""
        return self.rule.activation(self.weights, pre * self.scale, latents) / self.scale

    def objective(self, x: Float[Tensor, "N C"], stage: Stage) -> Objective:
        """The loss of a batch in training; the reconstruction in it is that of `scale · x`."""
        return self.rule.objective(self.weights, self._scaled(x), stage)

    @torch.no_grad()
    def begin(self, x: Float[Tensor, "N C"]) -> None:
        """Fix the scale, the decoder bias and what the kind needs by a first batch (of all ranks)."""
        n = total(torch.tensor(float(len(x)), device=x.device))
        mean = total(x.sum(0)) / n
        square = total(x.square().mean(1).sum()) / n
        self.scale.copy_(square.clamp_min(torch.finfo(x.dtype).tiny).rsqrt())
        start = mean if self.shift is None or isinstance(self.shift, str) else shift_vector(x, self.shift)
        self.decoder_bias.copy_(start * self.scale)
        if self.rule.input_bias == "own":
            self.get_parameter("input_bias").copy_(self.decoder_bias)
        elif self.rule.input_bias == "none":
            self.encoder_bias.copy_(-self.encoder @ self.decoder_bias)
        self.rule.begin(self.weights, x * self.scale)

    @torch.no_grad()
    def before_step(self) -> None:
        """Take out the part of the decoder's gradient along its columns, which their fixed norm would undo."""
        if self.rule.unit_norm and self.decoder.grad is not None:
            along = (self.decoder.grad * self.decoder).sum(1, keepdim=True)
            self.decoder.grad.sub_(along * self.decoder)

    @torch.no_grad()
    def after_step(self) -> None:
        """Decoder columns back to norm 1."""
        if self.rule.unit_norm:
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True))

    def save(self, folder: str | Path) -> None:
        """Write `sae.safetensors` and `config.json` to a folder."""
        save(self.state_dict(), self.config, Path(folder))

    @classmethod
    def load(cls, path: str | Path) -> "SAE":
        """An autoencoder from a folder that `save` wrote, or one of SAELens, dictionary_learning or sparsify.

        What `save` wrote comes back bit for bit. No file can run code.
        """
        folder = Path(path)
        if not folder.exists():
            raise missing(folder)
        if not is_saved(folder):
            with understood(folder):
                return cls._of_foreign(load_foreign(folder))
        config = read_config(folder / CONFIG)
        with fitting(folder / WEIGHTS):
            state = read_state(folder / WEIGHTS, config)
            sae = cls.from_config({**asdict(config), "training": recorded(config.training)})
            sae.to(state["decoder"].dtype).load_state_dict(state)
        return sae

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SAE":
        """As it was before training. A shift that was given as a vector is in the weights."""
        names = ("kind", "n_features", "n_latents", "k", "seed")
        training = typed(config["training"], Training)
        sae = cls(**{name: config[name] for name in names}, training=training, **config["options"])
        sae.about = dict(config["about"])
        return sae

    @classmethod
    def _of_foreign(cls, found: Foreign) -> "SAE":
        """With the parts that another library's file holds; b_in is ours, what that changes goes into b_e."""
        parts = found.parts
        n_latents, n_features = parts.encoder.shape
        k = min(K, n_latents) if found.k is None else found.k
        sae = cls(found.kind, n_features, n_latents, k, **found.options)
        with torch.no_grad():
            shifted = parts.encoder @ parts.decoder_bias
            own = sae.rule.input_bias == "decoder"
            correction = shifted * (own - parts.subtracts)
            sae.encoder.copy_(parts.encoder)
            sae.encoder_bias.copy_(parts.encoder_bias + correction)
            sae.decoder.copy_(parts.decoder)
            sae.decoder_bias.copy_(parts.decoder_bias)
            if found.kind == "jumprelu" and parts.threshold is not None:
                sae.get_parameter("rule.log_threshold").copy_(parts.threshold.clamp_min(0).log())
            elif found.kind in ("batchtopk", "matryoshka") and parts.threshold is not None:
                sae.get_buffer("rule.threshold").copy_(parts.threshold.clamp_min(0))
            if parts.log_gain is not None and parts.magnitude_bias is not None:
                sae.get_parameter("rule.log_gain").copy_(parts.log_gain)
                sae.get_parameter("rule.magnitude_bias").copy_(parts.magnitude_bias + correction * parts.log_gain.exp())
        sae.about = dict(found.about)
        return sae

    def _build(self, n_features: int) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.n_features = n_features
        self.rule: Rule = RULES[self.kind](n_features, self.n_latents, self.k, **self.options)
        directions = nn.functional.normalize(torch.randn(self.n_latents, n_features, generator=generator))
        self.encoder, self.decoder = nn.Parameter(directions.clone()), nn.Parameter(directions)
        self.encoder_bias = nn.Parameter(torch.zeros(self.n_latents), requires_grad=self.rule.encoder_bias)
        self.decoder_bias = nn.Parameter(torch.zeros(n_features))
        if self.rule.input_bias == "own":
            self.input_bias = nn.Parameter(torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(()))

    def _built(self) -> Self:
        if self.n_features is None:
            raise IerfError("this autoencoder has no weights yet: fit it, or give n_features")
        return self

    def _scaled(self, x: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if x.shape[-1] != self._built().n_features:
            raise IerfError(f"this autoencoder has {self.n_features} channels, the PFVs have {x.shape[-1]}")
        return x * self.scale


def saved_autoencoders(path: Path, layer: str | None = None) -> dict[str, SAE]:
    """Layer -> autoencoder of a folder that `ierf sae train` wrote, or of one autoencoder's.

    `layer` is that of a single autoencoder that does not say which it belongs to, as those of other libraries.
    """
    folders = sorted(file.parent for file in path.rglob(CONFIG)) or [path]
    found = {}
    for folder in folders:
        sae = SAE.load(folder)
        name = sae.about.get("layer") or (layer if len(folders) == 1 else None)
        if name is None:
            raise IerfError(f"the autoencoder in {str(folder)!r} does not say its layer; name it with --layer")
        found[str(name)] = sae
    return found


def trained_values(saes: Mapping[str, SAE], asked: str | None = None) -> Any:
    """`asked`, else the PFVs that all of them were trained on. Raises `IerfError` if they differ."""
    if asked is not None:
        return asked
    values = {sae.about.get("values", "pre-activation") for sae in saes.values()}
    if len(values) > 1:
        raise IerfError(
            f"these autoencoders were trained on different values ({', '.join(sorted(values))}); give those of one kind"
        )
    return values.pop()
