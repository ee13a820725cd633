"""`file:` — a state dict on disk, for a network that another source builds by name."""

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from ierf.errors import IerfError, UnknownNameError
from ierf.model.loading.labels import read_labels
from ierf.model.loading.source import Source
from ierf.model.loading.spec import Spec, parse
from ierf.model.loading.state_dict import StateDict, fill, read_state_dict
from ierf.model.vision_model import VisionModel


def file_source(named: Mapping[str, Source]) -> Source:
    """The source of models whose network is one of `named` and whose weights lie in a file."""
    builders = {name: source for name, source in named.items() if source.untrained}
    return Source(
        load=lambda spec: load(spec, builders),
        untrained=None,
        options=("arch", "labels"),
        what="a state dict of your own, .safetensors or .pt",
        names=list,
        examples=lambda: "file:weights.safetensors?arch=timm:resnet18&labels=labels.txt",
        home="your disk",
    )


def load(spec: Spec, builders: Mapping[str, Source]) -> VisionModel:
    """The network `arch`, with as many classes as the file's classifier has, filled with the file's weights."""
    path = Path(spec.name).expanduser()
    state = read_state_dict(path)
    model = _network(spec, builders, state)
    fill(model.net, state, path)
    if "labels" in spec.options:
        labels = read_labels(Path(spec.options["labels"]).expanduser())
        n_classes = _n_classes(model.net, state)
        if n_classes is not None and len(labels) != n_classes:
            raise IerfError(f"{spec.options['labels']!r} names {len(labels)} classes, the network has {n_classes}")
        model.labels = tuple(labels)
    return model


def _network(spec: Spec, builders: Mapping[str, Source], state: StateDict) -> VisionModel:
    if "arch" not in spec.options:
        raise IerfError(f"a file of weights needs its network's name: {spec.text}?arch=timm:resnet18, for example")
    arch = parse(spec.options["arch"])
    if arch.source not in builders:
        raise UnknownNameError("source of networks", arch.source, builders)
    build = builders[arch.source].untrained
    assert build is not None
    model = build(arch.name, None)
    n_classes = _n_classes(model.net, state)
    return model if n_classes in (None, _n_classes(model.net, model.net.state_dict())) else build(arch.name, n_classes)


def _n_classes(net: nn.Module, state: StateDict) -> int | None:
    """The rows of the classifier's kernel in `state`; the classifier is the network's last linear or convolution."""
    kernels = [f"{name}.weight" for name, m in net.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return state[kernels[-1]].shape[0] if kernels and kernels[-1] in state else None
