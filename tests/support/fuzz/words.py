"""The vocabulary: names of operations and heads, and how often each is drawn."""

from functools import partial

from support.fuzz import branches, heads, operations
from support.fuzz.lines import Operation
from support.fuzz.spellings import ACTIVATIONS

_FREQUENT = (
    operations.convolution, operations.batch_norm, operations.mutation, operations.write, operations.same,
    operations.move, operations.average, branches.save, branches.join, branches.gate, branches.constant,
)  # fmt: skip
_OTHERS = (
    operations.transposed_convolution, operations.pointwise, operations.unfolded_convolution, operations.layer_norm,
    operations.rms_norm, operations.unit_norm, operations.group_norm, operations.response_norm, operations.maximum,
    operations.shuffle, operations.prelu, branches.spatial_gate, branches.glu, branches.selective,
    branches.layer_scale, branches.coordinates, branches.shared, branches.attention, branches.steered,
    branches.attention_of_heads,
    branches.hidden_part,
)  # fmt: skip

OPERATIONS: dict[str, Operation] = {f.__name__: f for f in (*_FREQUENT, *_OTHERS)} | {
    name: partial(operations.activation, name) for name in ACTIVATIONS
}
FREQUENCIES: dict[str, int] = {
    name: 5 if f in _FREQUENT else 2 if f in _OTHERS else 1 for name, f in OPERATIONS.items()
}
JUDGED = (
    *"convolution batch_norm transposed_convolution pointwise unfolded_convolution layer_norm rms_norm".split(),
    *"unit_norm same move average maximum shuffle prelu save join gate constant layer_scale shared".split(),
    *ACTIVATIONS,
)
"""Those that the oracles know, in most of their spellings."""
HEADS: dict[str, Operation] = {
    f.__name__: f
    for f in (
        heads.pooled, heads.flattened, heads.convolved, heads.generalised_mean, heads.strongest, heads.hidden,
        heads.class_token,
    )
}  # fmt: skip
