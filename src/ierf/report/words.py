"""Sentences of a report: what was conserved, how it was made, how to make it again."""

import shlex

from ierf.attribution import Ledger
from ierf.report.explanation import Explanation
from ierf.report.figures import signed

METHOD_NAMES = {"srd": "Sharing Ratio Decomposition", "gradient_x_input": "gradient × input", "gradcam": "Grad-CAM"}

HOW_TO_READ = (
    "Warm colours mark evidence for the class, cool colours evidence against it, and where the photograph is grey "
    "there is none; each map is scaled by its own strongest values, so compare places within a map, and sums between maps.",
    "Low, high and input are one and the same relevance, met at three depths of one backward pass: the coarse maps say "
    "where the decision was taken, the fine ones which pixels it came from.",
    "A pointwise feature vector (PFV) is all channels at one position of a layer; its effective receptive field (iERF), "
    "the bright pixels, is what caused that vector in this photograph.",
)


def method_sentence(explanation: Explanation) -> str:
    """Method and options, as in "Sharing Ratio Decomposition, bias = drop"."""
    options = [f"{name} = {value}" for name, value in explanation.options.items()]
    return ", ".join([METHOD_NAMES.get(explanation.method, explanation.method.replace("_", " ")), *options])


def ledger_sentence(account: Ledger) -> str:
    """How much arrived, and where the rest went."""
    start = f"Relevance {signed(account.relevance_in)} started at {account.start}"
    if not account.relevance_in:
        return f"{start}: there was nothing to distribute."
    arrived = f"{start}; {percent(account.relevance_out / account.relevance_in)} of it reached the pixels"
    leaks = sorted((leak for entry in account.entries for leak in entry.leaks), key=lambda leak: -abs(leak.amount))
    lost = [leak for leak in leaks if abs(leak.amount) > 1e-4 * abs(account.relevance_in)][:3]
    if not lost:
        return f"{arrived}; no operation leaked."
    named = ", ".join(
        f"{leak.operation}{f' in {leak.module}' if leak.module else ''} ({percent(leak.amount / account.relevance_in)})"
        for leak in lost
    )
    return f"{arrived}; the largest leaks: {named}."


def percent(share: float) -> str:
    """A share with as many digits as tell it from 100 %, four at most."""
    text = f"{100 * share:.4f}".rstrip("0").rstrip(".")
    return f"{text} %".replace("-", "−")


def as_command(explanation: Explanation) -> str | None:
    """The shell command that makes these maps again; None where photograph or model have no name it could use."""
    if explanation.source is None or ":" not in explanation.model_name:
        return None
    words = ["ierf", "explain", str(explanation.source), "--model", explanation.model_name]
    if explanation.method != "srd":
        words += ["--method", explanation.method]
    for prediction in explanation.classes:
        words += ["--class", str(prediction.index)]
    for name, value in explanation.options.items():
        words += [f"--{name}", str(value)]
    return shlex.join(words)


def as_call(explanation: Explanation) -> str:
    """The Python lines that make these maps again; what has no name stands as a variable."""
    model = f"ierf.load({explanation.model_name!r})" if ":" in explanation.model_name else "ierf.VisionModel(net)"
    photo = repr(str(explanation.source)) if explanation.source else "photo"
    classes = [prediction.index for prediction in explanation.classes]
    method = [] if explanation.method == "srd" else [f"method={explanation.method!r}"]
    options = method + [f"{name}={value!r}" for name, value in explanation.options.items()]
    return "\n".join(
        [
            "import ierf",
            f"model = {model}",
            f"explanation = ierf.explain({', '.join(['model', photo, f'classes={classes}', *options])})",
            'explanation.save("report.html")',
        ]
    )
