"""The last words: from a map to class scores."""

from support.fuzz.lines import Draw, Lines, one

# Heads


def _classifier(d: Draw, features: int, **members: str) -> dict[str, str]:
    return {f"{d:head}": f"nn.Linear({features}, {d.pick([1, 5, 5, 5])})", **members}


def pooled(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    twin = f"y = {m}(y.mean((2, 3)))"
    spelling = d.pick(
        [
            twin,
            f"y = {m}(F.adaptive_avg_pool2d(y, 1).flatten(1))",
            f"y = {m}(torch.flatten(nn.AdaptiveAvgPool2d(1)(y), 1))",
            f"y = {m}(y.flatten(2).mean(-1))",
            f"y = {m}(y.mean(3).mean(2))",
            f"y = F.linear(y.mean([2, 3]), {m}.weight, {m}.bias)",
            f"y = y.mean((2, 3)) @ {m}.weight.T + {m}.bias",
            f"y = torch.addmm({m}.bias, y.mean((2, 3)), {m}.weight.t())",
            f"y = {m}(torch.mean(y, dim=(-2, -1)))",
            f"y = {m}(F.avg_pool2d(y, y.shape[2:]).squeeze(-1).squeeze(-1))",
        ]
    )
    whole = "mean(3)" not in spelling
    return one(
        spelling, twin if whole else None, by_hand=f"y = hand.pooled(y, {m})" if whole else None, **_classifier(d, c)
    )


def flattened(d: Draw) -> Lines:
    _, c, h, w = d.shape
    m = f"self.{d:head}"
    twin = f"y = {m}(y.flatten(1))"
    spelling = d.pick(
        [twin, f"y = {m}(y.reshape(len(y), -1))", f"y = {m}(nn.Flatten()(y))", f"y = {m}(torch.flatten(y, 1))"]
    )
    return one(spelling, twin, **_classifier(d, c * h * w))


def convolved(d: Draw) -> Lines:
    m = f"self.{d:head}"
    return one(f"y = {m}(y).mean((2, 3))", **{f"{d:head}": f"nn.Conv2d({d.shape[1]}, {d.pick([1, 5, 5])}, 1)"})


def generalised_mean(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    spelling = d.pick(
        [
            f"y = {m}(y.clamp(min=1e-6).pow(3.0).mean((2, 3)).pow(1 / 3))",
            f"y = {m}(F.avg_pool2d(y.clamp(min=1e-6).pow(self.{d:p}), y.shape[2:]).pow(1.0 / self.{d:p}).flatten(1))",
        ]
    )
    return one(spelling, **_classifier(d, c, **{f"{d:p}": "nn.Parameter(torch.full((1,), 3.0))"}))


def strongest(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    twin = f"y = {m}(y.amax((2, 3)))"
    spelling = d.pick(
        [
            twin,
            f"y = {m}(F.adaptive_max_pool2d(y, 1).flatten(1))",
            f"y = {m}(y.flatten(2).max(-1).values)",
            f"y = {m}(y.flatten(2).max(2)[0])",
        ]
    )
    return one(spelling, twin if "flatten(2)" not in spelling else None, **_classifier(d, c))


def hidden(d: Draw) -> Lines:
    m, c = f"self.{d:head}", d.shape[1]
    act = d.pick(["F.relu", "torch.tanh"])
    return one(f"y = {m}({act}(self.{d:fc}(y.mean((2, 3)))))", **_classifier(d, 4, **{f"{d:fc}": f"nn.Linear({c}, 4)"}))


def class_token(d: Draw) -> Lines | None:
    _, c, h, w = d.shape
    if h * w > 100:
        return None
    m, cls, qkv = f"self.{d:head}", f"self.{d:cls}", f"self.{d:qkv}"
    token = d.pick(["t[:, 0]", "t.select(1, 0)", "t[:, :1].squeeze(1)"])
    members = {f"{d:cls}": f"nn.Parameter(torch.randn(1, 1, {c}))", f"{d:qkv}": f"nn.Linear({c}, {3 * c})"}
    return one(
        f"t = torch.cat([{cls}.expand(len(y), 1, -1), y.flatten(2).mT], 1); q, k, v = {qkv}(t).chunk(3, -1); "
        f"t = t + F.scaled_dot_product_attention(q, k, v); y = {m}({token})",
        **_classifier(d, c, **members),
    )
