"""Words with more than one path: gates, constants that join, earlier maps, attention."""

from support.fuzz.lines import Draw, Lines, one

# Products


def gate(d: Draw) -> Lines:
    """Squeeze-excite and its like: what multiplies the map is computed from the map and is no map of it."""
    c, (a, b) = d.shape[1], (f"self.{d:squeeze}", f"self.{d:excite}")
    pooled = d.pick(
        ["y.mean((2, 3), keepdim=True)", "F.adaptive_avg_pool2d(y, 1)", "y.mean(3, keepdim=True).mean(2, keepdim=True)"]
    )
    hidden = f"{b}(F.relu({a}({pooled})))"
    bounded = d.pick(
        ["torch.sigmoid({})", "F.hardsigmoid({})", "{}.sigmoid()", "(torch.tanh({}) * 0.5 + 0.5)", "F.softmax({}, 1)"]
    )
    bounded = bounded.format(hidden)
    spelling, mutates = d.pick(
        [
            (f"y = y * {bounded}", False),
            (f"y = {bounded} * y", False),
            (f"y = y.mul({bounded})", False),
            (f"g = {bounded}; y.mul_(g)", True),
            (f"g = {bounded}; y *= g", True),
            (f"y = y * {bounded}.expand_as(y)", False),
            (f"g = {bounded}; y = torch.einsum('nchw,nc->nchw', y, g[..., 0, 0])", False),
        ]
    )
    twin = f"y = y * {bounded}"
    members = {f"{d:squeeze}": f"nn.Conv2d({c}, 2, 1)", f"{d:excite}": f"nn.Conv2d(2, {c}, 1)"}
    by_hand = f"y = hand.gated(y, {bounded.replace('(y', '(y.value[None]').replace('y.mean', 'y.value[None].mean')}[0])"
    return one(spelling, twin, mutates, by_hand if "mean(3" not in pooled else None, **members)


def spatial_gate(d: Draw) -> Lines:
    """A gate for each position."""
    m = f"self.{d:gate}"
    twin = f"y = y * torch.sigmoid({m}(y))"
    spelling, mutates = d.pick(
        [(twin, False), (f"y = torch.sigmoid({m}(y)) * y", False), (f"y.mul_({m}(y).sigmoid_())", True)]
    )
    made = d.pick([f"nn.Conv2d({d.shape[1]}, 1, 1)", f"nn.Conv2d({d.shape[1]}, {d.shape[1]}, 3, padding=1)"])
    return one(spelling, twin, mutates, **{f"{d:gate}": made})


def glu(d: Draw) -> Lines:
    m, c = f"self.{d:glu}", d.shape[1]
    act = d.pick(["torch.sigmoid", "F.silu", "F.gelu"])
    twin = f"z, t = {m}(y).chunk(2, 1); y = z * {act}(t)"
    spelling = d.pick(
        [
            twin,
            f"z = {m}(y); y = z[:, :{c}] * {act}(z[:, {c}:])",
            f"z, t = {m}(y).split({c}, 1); y = {act}(t) * z",
            *([f"y = F.glu({m}(y), 1)", f"y = nn.GLU(1)({m}(y))"] if act == "torch.sigmoid" else []),
        ]
    )
    return one(spelling, twin, **{f"{d:glu}": f"nn.Conv2d({c}, {2 * c}, 1)"})


def selective(d: Draw) -> Lines:
    """Two branches, weighted by a softmax over both (SKNet)."""
    a, b, m, c = f"self.{d:near}", f"self.{d:far}", f"self.{d:weigh}", d.shape[1]
    return one(
        f"z, t = {a}(y), {b}(y); g = {m}((z + t).mean((2, 3))).view(len(y), 2, {c}, 1, 1).softmax(1); "
        "y = z * g[:, 0] + t * g[:, 1]",
        **{
            f"{d:near}": f"nn.Conv2d({c}, {c}, 1)",
            f"{d:far}": f"nn.Conv2d({c}, {c}, 3, padding=1)",
            f"{d:weigh}": f"nn.Linear({c}, {2 * c})",
        },
    )


def layer_scale(d: Draw) -> Lines:
    g = f"self.{d:g}"
    twin = f"y = y * {g}"
    spelling, mutates = d.pick(
        [
            (twin, False),
            (f"y = {g} * y", False),
            (f"y.mul_({g})", True),
            (f"y = y.mul({g})", False),
            (f"y *= {g}", True),
        ]
    )
    return one(
        spelling,
        twin,
        mutates,
        f"y = hand.scale(y, {g})",
        **{f"{d:g}": f"nn.Parameter(torch.randn({d.shape[1]}, 1, 1))"},
    )


def constant(d: Draw) -> Lines:
    """A position map, a shift for each channel, or a number."""
    _, c, h, w = d.shape
    p = f"self.{d:p}"
    shape = d.pick([f"1, {c}, {h}, {w}", f"{c}, 1, 1", f"{c}, {h}, {w}"])
    spelling, twin, mutates = d.pick(
        [
            (f"y = y + {p}", f"y = y + {p}", False),
            (f"y += {p}", f"y = y + {p}", True),
            (f"y = {p} + y", f"y = y + {p}", False),
            (f"y = torch.add(y, {p}, alpha=2)", f"y = y + 2 * {p}", False),
            (f"y = y - {p}", f"y = y - {p}", False),
            (f"y.add_({p})", f"y = y + {p}", True),
            (f"y = {p} - y", f"y = -y + {p}", False),
            (f"y = y + {p}.type_as(y)", f"y = y + {p}", False),
            (f"y = y + {p}.expand_as(y)", f"y = y + {p}", False),
            (
                f"y = torch.stack([z + {p}.view({shape})[-{c}:].reshape(-1, *{p}.shape[-2:]) for z in y])",
                f"y = y + {p}",
                False,
            ),
            (f"y = torch.sub(y, {p})", f"y = y - {p}", False),
            (f"y = torch.rsub(y, {p})", f"y = -y + {p}", False),
            (f"z = {p}.expand_as(y).clone(); z += y; y = z", f"y = y + {p}", False),
            (f"y = {p}.add(y)", f"y = y + {p}", False),
            (f"y = sum([y, {p}])", f"y = y + {p}", False),
            (f"y = torch.stack([y, {p}.expand_as(y)]).sum(0)", f"y = y + {p}", False),
            (f"y = y + {p}.to(y.device, y.dtype)", f"y = y + {p}", False),
            (f"y = torch.addcmul(y, {p}, torch.ones_like(y))", f"y = y + {p}", False),
            (f"y = 1 - y * 0.5 + {p} * 0", "y = y * -0.5 + 1", False),
            (f"y = (y + {p} + 1.0) / 2", f"y = ((y + {p}) + 1.0) * 0.5", False),
        ]
    )
    hand = {f"y + {p}": f"y = hand.shift(y, {p})", f"y - {p}": f"y = hand.shift(y, -{p})"}.get(
        twin.removeprefix("y = ")
    )
    return one(spelling, twin, mutates, hand, **{f"{d:p}": f"nn.Parameter(torch.randn({shape}))"})


def coordinates(d: Draw) -> Lines:
    """Constant channels beside the map."""
    _, _, h, w = d.shape
    spelling = d.pick(
        [
            f"y = torch.cat([y, self.{d:grid}.expand(len(y), -1, -1, -1)], 1)",
            f"y = torch.cat([self.{d:grid}.repeat(len(y), 1, 1, 1), y], 1)",
            f"z = y.new_ones(len(y), 1, *y.shape[2:]) * torch.linspace(-1, 1, {w}).to(y); y = torch.cat([y, z], 1)",
            f"z = torch.linspace(-1, 1, {h}).type_as(y)[:, None].expand(len(y), 1, {h}, {w}); y = torch.cat([z, y], 1)",
            "y = torch.cat([y, torch.ones_like(y[:, :1])], 1)",
        ]
    )
    return one(spelling, **{f"{d:grid}": f"torch.randn(1, 1, {h}, {w})"})


# What steers, what is hidden, what is held


def steered(d: Draw) -> Lines:
    """Positions that are chosen by the map itself."""
    c, m = d.shape[1], f"self.{d:steer}"
    line = d.pick(
        [
            f"y = F.grid_sample(y, torch.tanh({m}(y)).permute(0, 2, 3, 1), align_corners=False)",
            "t = y.mean(1).flatten(1).argsort(1)[:, None].expand(-1, y.shape[1], -1); "
            "y = torch.gather(y.flatten(2), 2, t).view(y.shape)",
            "t = y.flatten(2).norm(dim=1).topk(4, -1).indices; "
            "y = torch.stack([z[:, i] for z, i in zip(y.flatten(2), t)]).unflatten(2, (2, 2))",
            "y = y.sort(2).values", "y = y.sort(3, descending=True)[0]", "y = y.topk(3, 2).values",
            "t = y.argmax(1, keepdim=True); y = y * torch.zeros_like(y).scatter(1, t, 1.0)",
            "y = y[:, y.abs().mean((0, 2, 3)).argsort()]",
        ]
    )  # fmt: skip
    return one(line, **{f"{d:steer}": f"nn.Conv2d({c}, 2, 1)"})


def hidden_part(d: Draw) -> Lines:
    """A part in a checkpoint, in a function of autograd's, without gradients, or cut off."""
    m = f"self.{d:part}"
    spelling, twin = d.pick(
        [
            (f"y = torch.utils.checkpoint.checkpoint({m}, y, use_reentrant=False)", f"y = {m}(y)"),
            (f"y = torch.utils.checkpoint.checkpoint({m}, y, use_reentrant=True)", f"y = {m}(y)"),
            ("y = Squared.apply(y)", "y = torch.square(y)"), ("y = y + Squared.apply(y)", "y = y + torch.square(y)"),
            (f"y = y + {m}(y).detach()", None), (f"y = y * {m}(y).detach()", None),
            (f"with torch.no_grad(): z = {m}(y); y = y + z", None), ("y = y.requires_grad_()", "y = y * 1.0"),
            (f"z = {m}(y); y = y.requires_grad_(True) + z", f"y = y + {m}(y)"),
            ("y.retain_grad() if y.requires_grad else None", "y = y * 1.0"),
        ]
    )  # fmt: skip
    made = f"nn.Sequential(nn.Conv2d({d.shape[1]}, {d.shape[1]}, 3, padding=1), nn.Tanh())"
    return one(spelling, twin, **{f"{d:part}": made})


# Branches


def save(d: Draw) -> Lines:
    """The map under another name: not a copy."""
    name = f"{d:s}"
    return Lines((f"{name} = y",), (f"{name} = y",), saves=(name,), by_hand=(f"{name} = y",))


def join(d: Draw) -> Lines | None:
    """An earlier map of the same size added, subtracted, put beside or multiplied."""
    fitting = [name for name, shape in d.saved.items() if shape[2:] == d.shape[2:]]
    if not fitting:
        return None
    s = d.pick(fitting)
    if d.saved[s] != d.shape:
        beside = d.pick(
            [f"y = torch.cat([y, {s}], 1)", f"y = torch.cat(({s}, y), dim=1)", f"y = torch.hstack([y, {s}])"]
        )
        order = f"[{s}, y]" if f"({s}, y)" in beside else f"[y, {s}]"
        return one(beside, f"y = torch.cat({order}, 1)", by_hand=f"y = hand.beside({order})")
    line, twin, mutates, hand = d.pick(
        [
            (f"y = y + {s}", f"y = y + {s}", False, f"y = hand.add(y, {s})"),
            (f"y += {s}", f"y = y + {s}", True, f"y = hand.add(y, {s})"),
            (f"y = torch.add({s}, y)", f"y = y + {s}", False, f"y = hand.add(y, {s})"),
            (f"y = y - {s}", f"y = y - {s}", False, None),
            (f"y = torch.stack([y, {s}]).sum(0)", f"y = y + {s}", False, f"y = hand.add(y, {s})"),
            (f"y.add_({s})", f"y = y + {s}", True, f"y = hand.add(y, {s})"),
            (f"y = torch.cat([y, {s}], 1)", f"y = torch.cat([y, {s}], 1)", False, f"y = hand.beside([y, {s}])"),
            (f"y = 0.7 * y + 0.3 * {s}", f"y = y * 0.7 + {s} * 0.3", False, None),
            (f"y = y * {s}", f"y = y * {s}", False, None),
            (f"y = torch.lerp(y, {s}, 0.3)", f"y = y * 0.7 + {s} * 0.3", False, None),
            (f"y = torch.maximum(y, {s})", f"y = torch.maximum(y, {s})", False, None),
            (f"{s}.add_(y); y = {s}", f"y = y + {s}; {s} = y", True, f"y = hand.add(y, {s}); {s} = y"),
            (f"y = y * torch.sigmoid({s})", f"y = y * torch.sigmoid({s})", False, None),
        ]
    )
    return one(line, twin, mutates, hand)


def shared(d: Draw) -> Lines:
    """One module twice."""
    m, c = f"self.{d:twice}", d.shape[1]
    act = d.pick(["F.relu", "torch.tanh", "F.gelu"])
    return one(
        f"y = {act}({m}({act}({m}(y))))",
        by_hand="; ".join([f"y = hand.affine(y, bare({m}), {m}.bias); y = hand.activation(y, {act})"] * 2),
        **{f"{d:twice}": f"nn.Conv2d({c}, {c}, 3, padding=1)"},
    )


def attention(d: Draw) -> Lines | None:
    """Self-attention over the positions, added to the map."""
    _, c, h, w = d.shape
    if h * w > 100:
        return None
    m, o = f"self.{d:qkv}", f"self.{d:out}"
    tokens = f"t = y.flatten(2).transpose(1, 2); q, k, v = {m}(t).chunk(3, -1); "
    back = "y = y + z.transpose(1, 2).view(y.shape)"
    products = [
        f"z = {o}(F.scaled_dot_product_attention(q, k, v)); ",
        f"z = {o}((q @ k.transpose(-2, -1) * {c**-0.5!r}).softmax(-1) @ v); ",
        f"z = {o}(torch.bmm(F.softmax(torch.bmm(q * {c**-0.5!r}, k.mT), dim=-1), v)); ",
        f"t = torch.softmax(torch.einsum('nic,njc->nij', q, k) * {c**-0.5!r}, -1); "
        f"z = {o}(torch.einsum('nij,njc->nic', t, v)); ",
        f"z = {o}(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]); ",
        f"z = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha={c**-0.5!r}); z = {o}(z.softmax(-1) @ v); ",
    ]
    if d.rng.random() < 0.3:
        need = d.pick(["need_weights=False", ""])
        line = f"t = y.flatten(2).transpose(1, 2); z = {m}(t, t, t, {need})[0]; {back}"
        return one(line, **{f"{d:qkv}": f"nn.MultiheadAttention({c}, 1, batch_first=True)"})
    return one(
        tokens + d.pick(products) + back,
        tokens + products[0] + back,
        **{f"{d:qkv}": f"nn.Linear({c}, {3 * c})", f"{d:out}": f"nn.Linear({c}, {c})"},
    )


def attention_of_heads(d: Draw) -> Lines | None:
    """Two heads over the positions of a map, as convolutional networks write them."""
    _, c, h, w = d.shape
    if c % 2 or h * w > 100:
        return None
    m, scale = f"self.{d:qkv}", repr((c // 2) ** -0.5)
    back = f"y = {d.pick(['y + ', ''])}z"
    parts = f"q, k, v = {m}(y).flatten(2).unflatten(1, (3, 2, {c // 2})).unbind(1); "
    folded = f"q, k, v = {m}(y).split({c}, 1); q, k, v = (t.reshape(-1, {c // 2}, {h * w}) for t in (q, k, v)); "
    twin = (
        parts + "z = F.scaled_dot_product_attention(q.mT, k.mT, v.mT); "
        f"z = z.mT.flatten(1, 2).unflatten(2, ({h}, {w})); {back}"
    )
    spelling = d.pick(
        [
            twin,
            parts + f"z = v @ (q.mT @ k * {scale}).softmax(-1).mT; z = z.reshape(y.shape); {back}",
            parts + f"z = ((q.mT * {scale}) @ k).softmax(-1) @ v.mT; z = z.transpose(2, 3).reshape(y.shape); {back}",
            parts + f"t = torch.einsum('nhdi,nhdj->nhij', q, k) * {scale}; "
            f"z = torch.einsum('nhij,nhdj->nhdi', t.softmax(-1), v).reshape(y.shape); {back}",
            folded + f"t = q.transpose(-1, -2) @ k * {scale}; "
            f"z = (t.softmax(-1) @ v.transpose(-1, -2)).transpose(-1, -2).reshape(y.shape); {back}",
            folded + f"t = torch.bmm(q.permute(0, 2, 1), k) * {scale}; "
            f"z = torch.bmm(v, F.softmax(t, 2).permute(0, 2, 1)).view(len(y), -1, {h}, {w}); {back}",
        ]
    )
    return one(spelling, twin, **{f"{d:qkv}": f"nn.Conv2d({c}, {3 * c}, 1)"})
