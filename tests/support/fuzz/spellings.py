"""How one function can be written: the spellings from which random networks are made.

`y` is the map (N, C, H, W) before and after.
"""

CHANGED = "# what shares memory with y is changed here"
"""In a twin: the place where maps that the in-place operation reaches get their new values."""

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": (
        "F.relu(y)", "nn.ReLU()(y)", "!nn.ReLU(inplace=True)(y)", "torch.relu(y)", "y.relu()", "!y.relu_()",
        "!F.relu(y, inplace=True)", "!torch.relu_(y)", "torch.max(y, torch.zeros_like(y))", "y.clamp(min=0)",
        "torch.maximum(y, y.new_zeros(()))", "torch.clamp_min(y, 0)", "F.threshold(y, 0.0, 0.0)", "!y.clamp_(min=0)",
        "torch.where(y > 0, y, torch.zeros_like(y))", "y * (y > 0)", "y.masked_fill(y < 0, 0.0)",
        "!y.masked_fill_(y < 0, 0.0)", "torch.clip(y, min=0)", "F.hardtanh(y, 0.0, 1e9)", "F.leaky_relu(y, 0.0)",
    ),
    "silu": (
        "F.silu(y)", "nn.SiLU()(y)", "!nn.SiLU(inplace=True)(y)", "y * torch.sigmoid(y)", "torch.sigmoid(y) * y",
        "y.mul(y.sigmoid())", "!y.mul_(y.sigmoid())", "y / (1 + torch.exp(-y))", "torch.mul(y, y.sigmoid())",
        "y * y.clone().sigmoid_()",
    ),
    "gelu": ("F.gelu(y)", "nn.GELU()(y)", "0.5 * y * (1.0 + torch.erf(y / 1.4142135623730951))"),
    "gelu_tanh": (
        "F.gelu(y, approximate='tanh')",
        "0.5 * y * (1 + torch.tanh(0.7978845608028654 * (y + 0.044715 * torch.pow(y, 3))))",
    ),
    "quick_gelu": ("y * torch.sigmoid(1.702 * y)", "y * (1.702 * y).sigmoid()", "(1.702 * y).sigmoid().mul(y)"),
    "hardswish": (
        "F.hardswish(y)", "nn.Hardswish()(y)", "!nn.Hardswish(inplace=True)(y)", "y * F.relu6(y + 3) / 6",
        "y * F.hardsigmoid(y)", "y * (F.relu6(y + 3.0) / 6.0)",
    ),
    "mish": ("F.mish(y)", "nn.Mish()(y)", "y * torch.tanh(F.softplus(y))", "y.mul(F.softplus(y).tanh())"),
    "leaky_relu": (
        "F.leaky_relu(y, 0.1)", "nn.LeakyReLU(0.1)(y)", "!nn.LeakyReLU(0.1, inplace=True)(y)", "torch.max(y, 0.1 * y)",
        "torch.where(y > 0, y, 0.1 * y)", "torch.maximum(0.1 * y, y)", "!F.leaky_relu_(y, 0.1)",
    ),
    "elu": ("F.elu(y)", "nn.ELU()(y)", "!F.elu(y, 1.0, True)", "!F.elu_(y)", "~torch.where(y > 0, y, torch.expm1(y))"),
    "tanh": ("torch.tanh(y)", "nn.Tanh()(y)", "y.tanh()", "!y.tanh_()", "F.tanh(y)", "~2 * torch.sigmoid(2 * y) - 1"),
    "sigmoid": ("torch.sigmoid(y)", "nn.Sigmoid()(y)", "y.sigmoid()", "!y.sigmoid_()", "~1 / (1 + torch.exp(-y))"),
    "relu6": (
        "F.relu6(y)", "nn.ReLU6()(y)", "!nn.ReLU6(inplace=True)(y)", "y.clamp(0, 6)", "torch.clamp(y, 0, 6)",
        "F.hardtanh(y, 0.0, 6.0)", "torch.relu(y).clamp(max=6)", "!y.clamp_(0, 6)",
    ),
    "softplus": ("F.softplus(y)", "nn.Softplus()(y)", "~torch.log1p(torch.exp(y))"),
    "square": ("torch.square(y)", "y ** 2", "y * y", "y.pow(2)", "torch.pow(y, 2)", "y.square()", "!y.pow_(2)"),
    "square_relu": ("F.relu(y) ** 2", "torch.square(F.relu(y))", "F.relu(y) * F.relu(y)", "torch.relu(y).pow(2)"),
    "softsign": ("F.softsign(y)", "nn.Softsign()(y)", "~y / (1 + y.abs())"),
    "selu": ("F.selu(y)", "nn.SELU()(y)", "!nn.SELU(inplace=True)(y)", "!torch.selu_(y)"),
    "celu": ("F.celu(y)", "nn.CELU()(y)", "!torch.celu_(y)"),
    "softshrink": ("F.softshrink(y, 0.1)", "nn.Softshrink(0.1)(y)"),
    "tanhshrink": ("F.tanhshrink(y)", "nn.Tanhshrink()(y)", "~y - torch.tanh(y)"),
    "hardsigmoid": ("F.hardsigmoid(y)", "nn.Hardsigmoid()(y)", "!nn.Hardsigmoid(inplace=True)(y)"),
}  # fmt: skip
"""The first spelling is the twin of all others. An exclamation mark: changes `y` in place. A tilde: the same values by
operations that share relevance in another way (a sum, a quotient), so a function of its own."""

ELSEWHERE = (
    "(lambda y: {})(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)", "(lambda y: {})(y.flatten(2)).view(y.shape)",
    "(lambda y: {})(y.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, y.shape[2:])",
    "torch.stack([(lambda y: {})(z) for z in y])", "torch.stack([(lambda y: {})(y[i]) for i in range(len(y))])",
    "torch.cat([(lambda y: {})(z) for z in y.split(1)])",
    "torch.einsum('nhwc->nchw', (lambda y: {})(torch.einsum('nchw->nhwc', y)))",
    "torch.cat([(lambda y: {})(z) for z in y.chunk(2, 2)], 2)", "(lambda y: {})(y.transpose(2, 3)).transpose(2, 3)",
    "(lambda y: {})(y[:, None])[:, 0]", "(lambda y: {})(y.unsqueeze(-1)).squeeze(-1)",
    "(lambda y: {})(y.movedim(1, 0)).movedim(0, 1)",
)  # fmt: skip
"""An elementwise function with the channels on another axis, or by pieces."""

SAME = (
    "y.view(len(y), y.shape[1], -1).view(y.shape)", "y.flatten(2).unflatten(2, y.shape[2:])",
    "y.permute(0, 2, 3, 1).permute(0, 3, 1, 2)", "y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)",
    "y.transpose(1, 2).transpose(1, 2)", "torch.cat(y.chunk(2, 1), 1)", "torch.cat(torch.split(y, 1, 1), dim=1)",
    "torch.stack(y.unbind(1), 1)", "torch.stack([z for z in y])", "torch.cat([z[None] for z in y])",
    "torch.stack([y[i] for i in range(len(y))])", "y[:, torch.arange(y.shape[1])]", "y.expand(y.shape)", "y[...]",
    "y.clone()", "y.contiguous()", "F.dropout(y, 0.3, training=False)", "nn.Dropout(0.5).eval()(y)",
    "nn.Dropout2d(0.5, inplace=True).eval()(y)", "y.reshape(-1, *y.shape[2:]).reshape(y.shape)",
    "y.movedim(1, -1).movedim(-1, 1)", "y.mT.mT", "y.swapaxes(2, 3).swapaxes(2, 3)", "y.unsqueeze(2).squeeze(2)",
    "y.flip(3).flip(3)", "torch.roll(torch.roll(y, 1, 2), -1, 2)", "F.fold(F.unfold(y, 1), y.shape[2:], 1)",
    "y.type_as(x)", "y.to(x.dtype)", "y.to(x)", "y.double()", "y.view_as(y)", "y.expand_as(y)", "y.cpu()",
    "torch.broadcast_tensors(y, x.new_zeros(1))[0]", "nn.Identity()(y)", "torch.concat([y[:, :1], y[:, 1:]], 1)",
    "torch.hstack([y[:, :1], y[:, 1:]])", "torch.cat([y[:, :, :2], y[:, :, 2:]], 2)", "y.narrow(2, 0, y.shape[2])",
    "y.flatten().view(y.shape)", "torch.atleast_3d(y)", "y.reshape_as(y)", "torch.stack([y, y]).mean(0)", "y.mul(1)",
    "torch.vstack(y.split(1))", "y.index_select(1, torch.arange(y.shape[1]))", "y.positive()", "+y", "-(-y)",
    "torch.stack((y, y * 2), -1).select(-1, 0)", "torch.unflatten(y.ravel(), 0, y.shape)", "y.squeeze(-5 + 4 - 1)",
    "torch.gather(y, 1, torch.arange(y.shape[1]).view(1, -1, 1, 1).expand(y.shape))",
    "y.as_strided(y.shape, y.stride())", "y.view(y.dtype)",
    "torch.Tensor.contiguous(y, memory_format=torch.channels_last)", "y.masked_select(y == y).view(y.shape)",
    "y[y == y].view(y.shape)", "torch.einsum('nchw->nhwc', y).permute(0, 3, 1, 2)", "torch.dstack(y.split(1, 2))",
    "torch.block_diag(y.flatten())[0].view(y.shape)", "y.repeat(1, 2, 1, 1)[:, : y.shape[1]]",
    "torch.moveaxis(torch.moveaxis(y, 1, 3), 3, 1)",
    "torch.index_add(torch.zeros_like(y), 1, torch.arange(y.shape[1]), y)",
    "torch.zeros_like(y).index_copy(1, torch.arange(y.shape[1]), y)",
    "torch.zeros_like(y).scatter_add(0, torch.arange(len(y)).view(-1, 1, 1, 1).expand(y.shape), y)", "y + 0",
    "torch.add(0, y)", "y.where(y == y, 0)", "torch.take_along_dim(y, torch.arange(len(y)).view(-1, 1, 1, 1), 0)",
    "torch.nan_to_num(y)", "y.diff(dim=2, prepend=torch.zeros_like(y[:, :, :1])).cumsum(2)",
)  # fmt: skip
"""Spellings of the identity."""

MOVES = (
    "y[:, :, ::2]", "y[..., 1:]", "y[:, :, 1:-1, 1:]", "y.flip(3)", "torch.flip(y, (2, 3))", "torch.roll(y, 1, 3)",
    "torch.roll(y, (1, 2), (2, 3))", "y.transpose(2, 3)", "y.mT", "y.rot90(1, (2, 3))", "y.repeat(1, 2, 1, 1)",
    "y[:, [1, 0]]", "y.tile((1, 1, 1, 2))", "y.repeat_interleave(2, 1)", "y.index_select(1, torch.tensor([1, 0]))",
    "y[:, -1:]", "F.interpolate(y, scale_factor=2)", "F.pad(y, (1, 0, 2, 1))", "F.pad(y, (1, 1, 1, 1), mode='reflect')",
    "F.pad(y, (1, 1, 0, 0), mode='circular')", "F.pad(y, (1, 1, 1, 1), mode='replicate')", "nn.ReflectionPad2d(1)(y)",
    "F.channel_shuffle(y, y.shape[1])", "torch.cat([y, y.flip(1)], 1)", "y.select(1, 0).unsqueeze(1)",
    "y[:, 0][:, None]", "y[:, None, 0]", "torch.stack([y[:, 0], y[:, 1]], 1)", "y.unbind(1)[0][:, None]",
    "torch.cat([y[..., ::2], y[..., 1::2]], -1)", "nn.ZeroPad2d(1)(y)", "y.unfold(2, 2, 2).select(-1, 0)",
    "y[:, :, torch.arange(2)]", "y.narrow(3, 1, 3)", "torch.tril(y)", "y[:, (0,)]", "y.swapdims(2, 3)",
    "y.chunk(2, 3)[1]", "y.split([1, y.shape[1] - 1], 1)[1]", "y.tensor_split(2, 2)[0]",
)  # fmt: skip
"""Elements that are moved, copied or left out."""

AVERAGES = (
    "F.avg_pool2d(y, 2)", "F.avg_pool2d(y, 3, 1, 1)", "F.avg_pool2d(y, 3, 2, 1, count_include_pad=False)",
    "nn.AvgPool2d(2, ceil_mode=True)(y)", "F.adaptive_avg_pool2d(y, (3, 2))", "nn.AdaptiveAvgPool2d(3)(y)",
    "F.interpolate(y, size=(5, 4), mode='bilinear', align_corners=False)", "F.interpolate(y, (4, 5), mode='bicubic')",
    "F.interpolate(y, scale_factor=1.5, mode='bilinear', align_corners=True)", "F.interpolate(y, (6, 4), mode='area')",
    "y.mean(1, keepdim=True).expand_as(y)", "y - y.mean((2, 3), keepdim=True)",
    "y.sum(1, keepdim=True).repeat(1, 2, 1, 1)", "F.fold(F.unfold(y, 2), y.shape[2:], 2)", "y.cumsum(2)",
    "y[:, :, :-1] - y[:, :, 1:]", "y.diff(dim=3)", "2 * y", "y / 3", "y - y.roll(1, 2)",
    "y * torch.tensor([0.5, 2.0]).to(y)[torch.arange(y.shape[1]) % 2].view(-1, 1, 1)",
    "torch.einsum('nchw,hg->ncgw', y, torch.eye(y.shape[2]).to(y).flip(0))", "y @ torch.ones(y.shape[3], 3).to(y)",
    "torch.ones(3, y.shape[2]).to(y) @ y", "F.conv2d(y, torch.ones(y.shape[1], 1, 2, 2).to(y), groups=y.shape[1])",
    "torch.lerp(y, y.flip(2), 0.3)", "torch.addcmul(y, torch.full_like(y, 0.5), y.flip(3))",
    "torch.sub(y, y.flip(2), alpha=0.5)", "torch.add(y, y.roll(1, 3), alpha=2)", "y.flip(1).add(y)",
    "torch.fft.ifft2(torch.fft.fft2(y)).real",
    "F.grid_sample(y, F.affine_grid(torch.eye(2, 3).to(y).repeat(len(y), 1, 1) * 0.8, y.shape), align_corners=False)",
    "(y.unflatten(2, (1, -1)).mean(2))", "sum(y.unbind(1)).unsqueeze(1)",
    "torch.stack(y.split(1, 1)).mean(0).expand_as(y)", "torch.sum(torch.stack([y, y.flip(2)]), 0)",
    "F.lp_pool2d(F.relu(y), 1, 2)",
)  # fmt: skip
"""Linear maps without weights."""

MUTATIONS: tuple[tuple[str, str], ...] = (
    ("z = y[:, :1]; z.mul_(0.5)", "y = torch.cat([y[:, :1] * 0.5, y[:, 1:]], 1)"),
    ("y[:, :1] *= 0.5", "y = torch.cat([y[:, :1] * 0.5, y[:, 1:]], 1)"),
    ("y[:, :1] += y[:, 1:2]", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    ("z = y[:, :1]; y.mul_(0.5); y = torch.cat([y, z], 1)", f"y = y * 0.5; {CHANGED}; y = torch.cat([y, y[:, :1]], 1)"),
    ("z = y.view(len(y), -1); z.mul_(3.0)", "y = y * 3.0"),
    ("z = y.flatten(2); y.mul_(3.0); y = z.unflatten(2, y.shape[2:])", f"y = y * 3.0; {CHANGED}"),
    ("z = y.permute(0, 2, 3, 1); z.add_(z.flip(3))", "y = y + y.flip(1)"),
    ("z, t = y[:, :1], y[:, 1:2]; z.add_(t)", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    (
        "z, t = y[:, :2], y[:, 1:]; z.mul_(2.0); y = torch.cat([z, t], 1)",
        f"y = torch.cat([y[:, :2] * 2.0, y[:, 2:]], 1); {CHANGED}; y = torch.cat([y[:, :2], y[:, 1:]], 1)",
    ),
    (
        "z, t = y.chunk(2, 2)[:2]; z.mul_(2.0)",
        "t = (y.shape[2] + 1) // 2; y = torch.cat([y[:, :, :t] * 2.0, y[:, :, t:]], 2)",
    ),
    ("y.mul_(0.5)", "y = y * 0.5"),
    ("y *= 0.5", "y = y * 0.5"),
    ("y /= 2", "y = y / 2"),
    ("y.neg_()", "y = -y"),
    ("y += y.flip(3)", "y = y + y.flip(3)"),
    ("y -= y.mean(1, keepdim=True)", "y = y - y.mean(1, keepdim=True)"),
    ("y.sub_(y.flip(2), alpha=0.5)", "y = y - 0.5 * y.flip(2)"),
    ("y.add_(1.0)", "y = y + 1.0"),
    ("y[:, :, 0] = 0", "y = torch.cat([torch.zeros_like(y[:, :, :1]), y[:, :, 1:]], 2)"),
    ("y[..., -1].zero_()", "y = torch.cat([y[..., :-1], torch.zeros_like(y[..., -1:])], -1)"),
    ("y[:, 0].mul_(2.0)", "y = torch.cat([y[:, :1] * 2.0, y[:, 1:]], 1)"),
    ("z = y.unbind(1)[0]; z *= 2.0", "y = torch.cat([y[:, :1] * 2.0, y[:, 1:]], 1)"),
    ("for z in y: z.mul_(2.0)", "y = y * 2.0"),
    ("z = y.detach(); z.mul_(2.0)", "y = y * 2.0"),
    ("y.data.mul_(2.0)", "y = y * 2.0"),
    ("z = y.T; z.mul_(2.0)", "y = y * 2.0"),
    ("z = y[0]; z.copy_(z.flip(1))", "y = torch.cat([y[:1].flip(2), y[1:]])"),
    ("y.copy_(y.flip(3).clone())", "y = y.flip(3)"),
    ("y[:] = y.flip(2).clone()", "y = y.flip(2)"),
    ("y[:, 1:2] = y[:, :1] * 2", "y = torch.cat([y[:, :1], y[:, :1] * 2, y[:, 2:]], 1)"),
    ("y[:, [0, 1]] = y[:, [1, 0]]", "y = torch.cat([y[:, 1:2], y[:, :1], y[:, 2:]], 1)"),
    ("y.unsqueeze_(2); y.squeeze_(2)", "y = y * 1.0"),
    ("y.transpose_(2, 3)", "y = y.transpose(2, 3)"),
    ("y.index_add_(1, torch.tensor([0]), y[:, 1:2].clone())", "y = torch.cat([y[:, :1] + y[:, 1:2], y[:, 1:]], 1)"),
    ("torch.mul(y, 2.0, out=y)", "y = y * 2.0"),
    ("z = y; z += 1; z.mul_(2)", "y = (y + 1) * 2"),
    (
        "z = y[:, :1]; t = z[:, :, 1:]; t.mul_(3.0); y.mul_(0.5)",
        f"t = torch.cat([y[:, :1, :1], y[:, :1, 1:] * 3.0], 2); y = torch.cat([t, y[:, 1:]], 1) * 0.5; {CHANGED}",
    ),
    (
        "z = y[:, :1]; y[:, :1].mul_(3.0); y = y + z",
        f"y = torch.cat([y[:, :1] * 3.0, y[:, 1:]], 1); {CHANGED}; y = y + y[:, :1]",
    ),
    (
        "z = y[:, :1].expand(-1, 2, -1, -1); y.mul_(3.0); y = torch.cat([y, z], 1)",
        f"y = y * 3.0; {CHANGED}; y = torch.cat([y, y[:, :1], y[:, :1]], 1)",
    ),
    ("y[:, :1].add_(y[:, 1:2].flip(2))", "y = torch.cat([y[:, :1] + y[:, 1:2].flip(2), y[:, 1:]], 1)"),
    (
        "z = y[:, :, :1]; y[:, :, 1:2] += z; y[:, :, 2:3] += y[:, :, 1:2]",
        "a = y[:, :, :1]; b = y[:, :, 1:2] + a; y = torch.cat([a, b, y[:, :, 2:3] + b, y[:, :, 3:]], 2)",
    ),
    (
        "y.masked_fill_(torch.ones_like(y[..., :1]).cumsum(2) > 2, 0.0)",
        "y = y * (torch.ones_like(y[..., :1]).cumsum(2) <= 2)",
    ),
    ("y.clamp_(min=-1).clamp_(max=1)", "y = y.clamp(min=-1).clamp(max=1)"),
    ("y.view(-1)[::2].mul_(2.0)", "t = torch.ones_like(y).view(-1); t[::2] = 2.0; y = y * t.view(y.shape)"),
)
"""A change of `y` or of a view of it, and the same without."""

WRITES: tuple[tuple[str, str], ...] = (
    ("z = torch.zeros_like(y); z[:] = y; y = z", "y = y * 1.0"),
    ("z = torch.empty_like(y); z.copy_(y); y = z", "y = y * 1.0"),
    (
        "z = y.new_zeros(y.shape); z[:, :1] = y[:, :1]; z[:, 1:] = y[:, 1:]; y = z",
        "y = torch.cat([y[:, :1], y[:, 1:]], 1)",
    ),
    (
        "z = torch.zeros(y.shape).to(y); t = z[:, :1]; t.copy_(y[:, :1]); z[:, 1:] = y[:, 1:]; y = z",
        "y = torch.cat([y[:, :1], y[:, 1:]], 1)",
    ),
    ("z = torch.zeros_like(y); z += y; y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.add_(y); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.view(-1)[:] = y.reshape(-1); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.permute(0, 2, 3, 1).copy_(y.permute(0, 2, 3, 1)); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z[:, :, 1:] += y[:, :, :-1]; y = z", "y = F.pad(y[:, :, :-1], (0, 0, 1, 0))"),
    ("z = y.new_zeros(len(y), y.shape[1], 12, 12)[:, :, : y.shape[2], : y.shape[3]]; z[:] = y; y = z", "y = y * 1.0"),
    (
        "z = y.new_zeros(len(y), y.shape[1], y.shape[2] + 2, y.shape[3] + 2); z[:, :, 1:-1, 1:-1] = y; y = z",
        "y = F.pad(y, (1,) * 4)",
    ),
    (
        "z = y.new_zeros(len(y), y.shape[1], y.shape[2] + 2, y.shape[3]); t = z[:, :, 1:-1]; t.copy_(y); y = z",
        "y = F.pad(y, (0, 0, 1, 1))",
    ),
    ("z = torch.zeros_like(y); t = z[:, :1]; z.copy_(y); y = torch.cat([z, t], 1)", "y = torch.cat([y, y[:, :1]], 1)"),
    ("z = torch.ones_like(y); z.mul_(y); y = z", "y = y * 1.0"),
    ("z = torch.ones_like(y); z *= y; y = z", "y = y * 1.0"),
    ("z = y.new_empty(y.shape); torch.mul(y, 0.5, out=z); y = z", "y = y * 0.5"),
    (
        "z = [torch.zeros_like(y[0]) for _ in y]; [t.copy_(u) for t, u in zip(z, y)]; y = torch.stack(z)",
        "y = torch.stack([y[i] for i in range(len(y))])",
    ),
    ("z = torch.zeros_like(y); z.index_add_(1, torch.arange(y.shape[1]), y); y = z", "y = y * 1.0"),
    (
        "z = torch.zeros_like(y); z.scatter_(1, torch.arange(y.shape[1]).view(1, -1, 1, 1).expand(y.shape), y); y = z",
        "y = y * 1.0",
    ),
    ("z = torch.zeros_like(y); z[y > 0] = y[y > 0]; y = z", "y = y * (y > 0)"),
    (
        "z = y.new_zeros(2, *y.shape); z[0] = y; z[1] = y.flip(2); y = z.mean(0)",
        "y = torch.stack([y, y.flip(2)]).mean(0)",
    ),
    (
        "z = y.new_zeros(2, *y.shape); a, b = z; a.copy_(y); b.copy_(y * 2); y = z.sum(0)",
        "y = torch.stack([y, y * 2]).sum(0)",
    ),
    ("z = y.detach().clone(); z.copy_(y); y = z", "y = y * 1.0"),
    ("z = torch.zeros_like(y); z.data.copy_(y); y = z", "y = y * 1.0"),
    ("z = y.clone(); z[:, :1] = 0.3; y = z", "y = torch.cat([torch.full_like(y[:, :1], 0.3), y[:, 1:]], 1)"),
    ("z = torch.zeros_like(y); torch.add(y, y.flip(2), out=z); y = z", "y = y + y.flip(2)"),
    (
        "z = y.new_zeros(y.shape); z.select(1, 0).copy_(y[:, 0]); z.narrow(1, 1, y.shape[1] - 1).add_(y[:, 1:]); y = z",
        "y = torch.cat([y[:, :1], y[:, 1:]], 1)",
    ),
    ("z = torch.full_like(y, 0.5); z.addcmul_(y, torch.ones_like(y)); y = z", "y = y + 0.5"),
    ("z = torch.zeros_like(y); z.lerp_(y, 0.5); y = z", "y = y * 0.5"),
    ("z = torch.zeros_like(y); z.index_put_((torch.arange(len(y)),), y); y = z", "y = y * 1.0"),
)
"""`y` written into a buffer or into a view of one, and the same without."""
