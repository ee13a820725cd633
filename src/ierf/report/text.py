"""Numbers and sentences of a report: what was conserved, how it was made, how to make it again."""

import re
import shlex
import unicodedata
from typing import Any

from ierf.attribution import RESOLUTIONS, Ledger
from ierf.report.explain import Explanation

ROUNDING = 1e-4
"""Of the whole relevance: less than that is no leak."""

METHOD_NAMES = {
    "srd": "Sharing Ratio Decomposition",
    "attnlrp": "AttnLRP",
    "cp_lrp": "CP-LRP",
    "gradient_x_input": "gradient × input",
    "guided_backprop": "guided backpropagation",
    "smoothgrad": "SmoothGrad",
    "fullgrad": "FullGrad",
    "lrp_zplus": "LRP-z⁺",
    "gradcam": "Grad-CAM",
    "gradcam_pp": "Grad-CAM++",
    "xgradcam": "XGrad-CAM",
    "scorecam": "Score-CAM",
    "ablationcam": "Ablation-CAM",
    "layercam": "Layer-CAM",
    "kernel_shap": "KernelSHAP",
}

HOW_TO_READ = (
    "Warm colours mark evidence for the class, cool colours evidence against it, and where the photograph stays "
    "grey there is none; each map is scaled by its own strongest values, so compare places within a map, and sums "
    "between maps.",
    "Low, high and input are one and the same relevance, met at three depths of one backward pass: the coarse maps say "
    "where the decision was taken, the fine ones which pixels it came from.",
    "A pointwise feature vector (PFV) is all channels at one position of a layer; its effective receptive field (iERF) "
    "is the pixels that caused that vector in this photograph: they are bright, the rest is dim.",
)


def percent(share: float, digits: int | None = None) -> str:
    """A share in percent, or a dash for NaN: one decimal, but four within a percent of all or nothing.

    digits: so many significant ones instead.
    """
    if share != share:
        return "–"
    if digits is not None:
        return f"{100 * share:.{digits}g} %".replace("-", "−")
    decimals = 4 if min(abs(share), abs(1 - share)) < 0.01 else 1
    text = f"{round(100 * share, decimals) + 0.0:.{decimals}f}".rstrip("0").rstrip(".")
    return f"{text} %".replace("-", "−")


def slug(text: str) -> str:
    """`text` as a file name: ASCII letters, digits, dots and dashes, at most 80."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.]+", "-", plain).strip("-.")[:80] or "unnamed"


def signed(value: float) -> str:
    """A number as captions show it: three digits, a real minus."""
    return f"{value:+#.3g}".replace("-", "−").rstrip(".")


def method_sentence(explanation: Explanation) -> str:
    """Method and options, as in "Sharing Ratio Decomposition, bias = drop"."""
    options = [f"{name} = {value}" for name, value in explanation.options.items()]
    return ", ".join([METHOD_NAMES.get(explanation.method, explanation.method.replace("_", " ")), *options])


def best_classes(explanation: Explanation, count: int = 3) -> str:
    """The photograph and its most probable classes, as in "cat.jpg: tabby 31.4 %, Egyptian cat 23.6 %"."""
    best = ", ".join(f"{p.label} {100 * p.probability:.1f} %" for p in explanation.top[:count])
    return f"{explanation.name}: {best}"


def ledger_sentence(account: Ledger) -> str:
    """How much arrived, and where the rest went."""
    start = f"Relevance {signed(account.relevance_in)} started at {account.start}"
    if not account.relevance_in:
        return f"{start}: there was nothing to distribute."
    arrived = f"{start}; {percent(account.relevance_out / account.relevance_in)} of it reached the pixels"
    lost = _largest_leaks(account)
    if not lost:
        return f"{arrived}; nothing leaked on the way."
    named = ", ".join(f"{where} ({percent(amount / account.relevance_in)})" for where, amount in lost)
    return f"{arrived}; the largest leaks: {named}."


def as_command(explanation: Explanation) -> str | None:
    """The shell command that makes these maps again; None where a command cannot say what was explained."""
    layers = {pfv.layer for pfv in explanation.pfvs or ()}
    if explanation.source is None or not _is_address(explanation.model_name) or len(layers) > 1:
        return None
    words = ["ierf", "explain", str(explanation.source), "--model", explanation.model_name]
    for flag, value in _unusual(explanation).items():
        words += [f"--{flag}", str(value)]
    for prediction in explanation.classes:
        words += ["--class", str(prediction.class_index)]
    for resolution in _unusual_resolutions(explanation):
        words += ["--resolution", resolution]
    for layer in layers:
        words += ["--layer", layer]
    for pfv in explanation.pfvs or ():
        numbers = [pfv.position] if isinstance(pfv.position, int) else pfv.position
        words += ["--position", ",".join(map(str, numbers))]
    return shlex.join(words)


def as_call(explanation: Explanation) -> str:
    """The Python lines that make these maps again; what has no name stands as a variable."""
    name = explanation.model_name
    model = f"ierf.load({name!r})" if _is_address(name) else "ierf.VisionModel(net)"
    photo = repr(str(explanation.source)) if explanation.source else "photo"
    arguments = ["model", photo, f"classes={[prediction.class_index for prediction in explanation.classes]}"]
    arguments += [f"{option}={value!r}" for option, value in _unusual(explanation).items()]
    if resolutions := _unusual_resolutions(explanation):
        arguments.append(f"resolutions={resolutions!r}")
    if explanation.pfvs is not None:
        arguments.append(f"pfvs=[{', '.join(f'ierf.targets.{pfv!r}' for pfv in explanation.pfvs)}]")
    return "\n".join(
        [
            "import ierf",
            f"model = {model}",
            f"explanation = ierf.explain({', '.join(arguments)})",
            'explanation.save("report.html")',
        ]
    )


def _largest_leaks(account: Ledger, count: int = 3) -> list[tuple[str, float]]:
    """Where relevance was lost or created beyond rounding, and how much; stretches where no operation owns up to it."""
    leaks = [
        (f"{leak.operation} in {leak.module}" if leak.module else leak.operation, leak.amount)
        for entry in account.entries
        for leak in entry.leaks
    ]
    leaks += [(entry.layer, entry.unexplained) for entry in account.entries]
    beyond_rounding = [leak for leak in leaks if abs(leak[1]) > ROUNDING * abs(account.relevance_in)]
    return sorted(beyond_rounding, key=lambda leak: -abs(leak[1]))[:count]


def _is_address(model_name: str) -> bool:
    return ":" in model_name


def _unusual(explanation: Explanation) -> dict[str, Any]:
    """Method and options where they are not the default."""
    method = {} if explanation.method == "srd" else {"method": explanation.method}
    return {**method, **explanation.options}


def _unusual_resolutions(explanation: Explanation) -> list[str]:
    shown = list(next(iter(explanation.maps.values())))
    return [] if explanation.method != "srd" or shown == list(RESOLUTIONS) else shown
