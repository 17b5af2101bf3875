"""What random cells are made of: expressions with slots, which `cell_maker` fills.

Slots: {a} the anchor, a float tensor [B, …]; {r} an anchor [B, n]; {m} an anchor [B, …, …]; {s} an anchor of any shape, [B] too;
{b} {c} floats that broadcast with the anchor; {q} truth values and {i} whole numbers that do; {p} a parameter as wide as the
anchor, {B} a buffer or attribute so wide, {C} a constant that broadcasts with it; {w} a weight [o, n] and {o} a bias of as many,
{z} a weight [n, n]; {n} the anchor's width, {k} a number, {B1} the batch as the step sees it.
"""

POINTWISE = """
-{a} | 1 - {a} | {a} * 0.7 + 0.1 | {k} * {a} | {a}.tanh() ** 2 | {a}.tanh() ** 3 | ({a}.abs() + 0.2) ** 0.5
({a}.abs() + 0.5) ** -1 | ({a}.sigmoid() + 0.2) ** 1.6 | 1 / (1 + {a} * {a}) | torch.exp(-{a}.abs())
torch.exp({a}.clamp(max=0.5)) | torch.log({a}.abs() + 0.3) | torch.sqrt({a} * {a} + 0.1)
torch.rsqrt({a}.abs() + 0.4) | {a}.abs() | {a}.clamp(min=-0.3) | {a}.clamp(max=0.4) | {a}.clamp(-0.6, 0.8)
torch.sigmoid({a}) | torch.tanh({a}) | F.relu({a}) | F.leaky_relu({a}, 0.1) | F.elu({a}) | F.gelu({a})
F.gelu({a}, approximate="tanh") | F.silu({a}) | F.softplus({a}) | F.hardtanh({a}) | F.relu6({a} + 3) / 6
torch.erf({a}) | torch.sin({a}) | torch.cos({a}) | torch.expm1(-{a}.abs()) | torch.log1p({a}.abs())
torch.sign({a}) + {a} | torch.floor({a}) + {a} | F.logsigmoid({a}) | F.mish({a}) | F.hardswish({a}) | {a}.square()
{a}.reciprocal().clamp(-2, 2) | 1.3 ** {a} | {a}.pow(2) | {a}.sub(0.3, alpha=2) | torch.rsub({a}, 1.5) | {a} + {b}
{a} - {b} | {a} * {b} | {a} / ({b}.abs() + 0.6) | ({a}.sigmoid() + 0.3) ** {b}.tanh() | torch.minimum({a}, {b})
torch.maximum({a}, {b}) | torch.sigmoid({a}) * torch.tanh({b}) | torch.where({a} > {b}, {a}, 0.5 * {b})
torch.where({a} <= 0, {b}, {a}) | torch.where(({a} > 0) & ({b} < 0.5), {a}.sin(), {b}) | torch.where({q}, {a}, {b})
torch.where({q}, {a}, 0.0) | torch.where({q}, 1.0, {a}) | {a}.masked_fill({q}, -0.5) | {a}.masked_fill({a} > {b}, {k})
torch.lerp({a}, {b}, 0.3) | torch.lerp({a}, {b}, {c}.sigmoid()) | torch.addcmul({a}, {b}, {c}, value=0.5)
torch.addcdiv({a}, {b}, {c}.abs() + 1) | {a}.clamp(max={b}) | torch.clamp({a}, {p} - 1, {p} + 1) | {a} * {p}
{a} + {p} | {p} - {a} | torch.max({a}, {p}) | {a} * {p}.sigmoid() + ({p} * {p}).sum() | {a}.clamp(max=float("inf"))
{a}.clamp(-math.inf, 0.5) | {a} * math.pi / 4 | {a} + True | {a} * 2 | {a} / 3 | torch.div({a}, 2)
torch.mul({a}, 0.5) | {a}.detach() * {b} | {a} - {a}.detach() * 0.5 | {a}.clone() | {a}.contiguous() + 0
{a}.to({a}.dtype) | {a}.type_as({b}) | +{a} | {a} * 1.0
"""

UNKNOWN = """
torch.atan({a}) | torch.sinh({a}.clamp(-2, 2)) | torch.cosh({a}.clamp(-1, 1)) | torch.asinh({a})
torch.tan({a}.clamp(-1, 1)) | torch.erfc({a}) | torch.exp2({a}.clamp(max=2)) | torch.log2({a}.abs() + 0.3)
torch.log10({a}.abs() + 0.3) | F.softsign({a}) | F.celu({a}) | F.selu({a}) | F.tanhshrink({a})
F.softshrink({a}, 0.2) | F.hardshrink({a}, 0.2) | F.threshold({a}, 0.1, 0.3) | torch.logaddexp({a}, {b})
torch.hypot({a}, {b} + 3) | torch.atan2({a}, {b}.abs() + 1) | torch.fmod({a}, 1.3) | torch.remainder({a}, 1.3)
{a}.round() + {a} | {a}.ceil() - {a} | {a}.trunc() | {a}.frac() | torch.sinc({a})
torch.logit({a}.sigmoid() * 0.8 + 0.1) | torch.special.expit({a}) | torch.nan_to_num({a}) | torch.fmax({a}, {b})
torch.fmin({a}, {b}) | torch.copysign({a}, {b}) | torch.heaviside({a}, {b}) | F.prelu({a}, {p}[:1]) | {a} // 0.5
torch.floor_divide({a}, 0.5) | {a} % 0.7 | torch.cumsum({a}, -1) * 0.3 | torch.cumprod({a}.tanh(), -1)
torch.cummax({a}, -1)[0] | torch.sort({a}, -1)[0] | torch.topk({a}, 1, -1)[0] | {a}.max(-1, keepdim=True)[0]
{a}.min(-1, keepdim=True).values | {a}.median(-1, keepdim=True)[0] | torch.logcumsumexp({a}, -1)
{a}.tanh().prod(-1, keepdim=True) | torch.diff({a}, dim=-1) | torch.roll({a}, 1, -1) | torch.roll({a}, (1,), (-1,))
F.pad({a}, (1, 0)) | F.pad({a}, (0, 1), value=0.5) | F.normalize({a} + 0.1, dim=-1)
F.cosine_similarity({a}, {b} + 0.1, dim=-1) | F.softmin({a}, dim=-1) | torch.renorm({a}, 2, 0, 1.0)
{a}.aminmax(dim=-1, keepdim=True)[0] | torch.special.log1p({a}.abs()) | torch.float_power({a}.abs() + 0.5, 0.5)
F.glu(torch.cat([{a}, {b}], -1), -1) | torch.trapezoid({a}, dim=-1) | {a}.nansum(-1, keepdim=True)
"""

SHAPES = """
torch.cat([{a}, {b}], -1) | torch.cat([2 * {b}, {a}[..., :1]], -1) | {a}.flip(-1) | {a}.flip(-1) * {b} | {a}[..., 1:]
{a}[..., ::2] | {a}[..., :1] * {b} | {a}[..., -1:] | {r}[:, 0] | {r}[:, -1].unsqueeze(-1) | {r}.unsqueeze(1)
{r}.unsqueeze(-1) | {r}[:, None, :] * {b} | {r}[..., None] | {a}.transpose(1, -1) | {a}.flatten(1)
{a}.reshape({a}.shape[0], -1) | torch.cat([c * (k + 1) for k, c in enumerate({r}.chunk(2, -1))], -1)
torch.cat({r}.split([1, {r}.shape[1] - 1], -1)[::-1], -1) | {r}.chunk(2, -1)[0] | {a}.narrow(-1, 0, 1)
torch.stack([{a}, {b}], 1).sum(1) | torch.stack(torch.broadcast_tensors({a}, {b}), -1).mean(-1)
torch.stack([{a}, {b}, {a} * {b}], 1).softmax(1)[:, 1] | torch.stack([{a}, {b}], 1)
(torch.stack([{a}, {b}]).softmax(0) * torch.stack([{b}, {a}])).sum(0) | torch.stack([{a}, {b}]).amax(0)
{r}.unflatten(-1, (2, -1)).softmax(1).mean(1) | {r}.unflatten(-1, (2, -1)) | {r}.view(-1, {r}.shape[1] // 2, 2)
{r}.view({r}.shape[0], 1, -1) | {a}.unbind(-1)[0] | sum({a}.unbind(-1)) | {r}[:, :1].expand(-1, 4)
{r}[:, :1].expand({r}.shape[0], 3) | {r}.repeat(1, 2) | {r}.repeat_interleave(2, 1) | {r}.tile(1, 2)
{m}.permute(0, 2, 1) | {m}.sum(1) | {m}.mean(-1) | {m}[:, 0] | {m}.amax(1) | {m}.flatten(1) | {m}.softmax(1)
{m}.transpose(1, 2).reshape({m}.shape[0], -1) | {a}.sum(-1, keepdim=True) * 0.3 | {a}.mean(-1, keepdim=True) - {b}
{a}.mean(-1).unsqueeze(-1) | {a}.var(-1, unbiased=False, keepdim=True) | {a}.var(-1, keepdim=True)
{a}.std(-1, keepdim=True) + {a} | {a}.amax(-1, keepdim=True) - {b} | {a}.amin(-1, keepdim=True)
torch.linalg.vector_norm({a} + 0.1, dim=-1, keepdim=True) | ({a} + 0.1).norm(dim=-1, keepdim=True)
{a}.logsumexp(-1, keepdim=True) | {a}.norm(p=1, dim=-1, keepdim=True) | {a}.softmax(-1) | {a}.log_softmax(-1) * 0.3
F.layer_norm({a}, {a}.shape[-1:], eps=0.1) | F.layer_norm({a}, {a}.shape[-1:], {p}, {p}.cos(), 0.1)
F.rms_norm({a}, {a}.shape[-1:], {p}, 0.1) | {a}.sum(-1) | ({r}.unsqueeze(2) * {r}.tanh().unsqueeze(1)).sum(1)
{s}.unsqueeze(-1) | {s}.unsqueeze(-1).expand(-1, 3) | {s}[..., None] * {k} | {s}.tanh() | {s} * {k} + 0.1
{s}.sigmoid() | {s}.view({s}.shape[0], -1) | {r}.reshape(-1).view({r}.shape) | {a}.movedim(1, -1) | {a}.squeeze(-1)
{a}.swapaxes(1, -1) | {r}.T.t() | {r}.mT.T * 0.5 | torch.hstack([{r}, {r}]) | torch.atleast_2d({r})
{a}.expand_as({a}) | {r}.view(-1, {n})
"""

PRODUCTS = """
F.linear({a}, {w}) | F.linear({a}, {w}, {o}) | F.linear({a}, {w}, {o}) | {a} @ {w}.t() | {r} @ {w}.T + {o}
torch.matmul({a}, {w}.t()) | {r}.mm({w}.t()) | torch.addmm({o}, {r}, {w}.t())
torch.addmm({r}, {r}, {z}, beta=0.5, alpha=2) | torch.einsum("bi,oi->bo", {r}, {w})
torch.einsum("...i,oi->...o", {a}, {w}) | ({w} @ {r}.t()).t() | F.linear({a}, {z}.t()) | {a} @ {z} @ {z}
F.linear(F.linear({a}, {z}).tanh() * {b}, {w}, {o})
F.linear(torch.cat([{a}, {a}], -1), torch.cat([{w}, {w} * 0.5], 1)) | {r} @ {p} | {a} @ {p}.unsqueeze(-1)
torch.mv({r}, {p}) | torch.inner({r}, {p})
torch.bmm({r}.unsqueeze(1), {w}.t().expand({r}.shape[0], -1, -1)).squeeze(1)
torch.einsum("bi,bj->bij", {r}, {r}.tanh()) | torch.bmm({m}, {m}.transpose(1, 2).tanh()) * 0.3
torch.einsum("bij,bj->bi", {m}, {m}[:, 0]) | ({a} * {p}).sum(-1, keepdim=True)
torch.baddbmm({m}, {m} @ {m}.transpose(1, 2), {m}.tanh()) * 0.1 | torch.tensordot({r}, {w}, dims=([1], [1]))
torch.kron({r}[:, :1], {p}[:2]) | F.bilinear({r}, {r}, {w}.unsqueeze(2).repeat(1, 1, {n}))
F.linear({r}, {w}.abs().softmax(-1)) | F.linear({a}, {w} * ({w} > 0)) | F.linear({r}, {w} - {w}.mean(0))
F.linear({a}, {w}).tanh() | F.linear({a}, {w}, {o}).sigmoid() * 0.5 | torch.chain_matmul({r}, {z}, {z})
{r}.matmul({z})
"""

NUMBERS = """
({a} > 0).to({a}.dtype) | ({a} > {b}) * {a} | ({a} > 0) * 2.0 - {b} | {a} * ({b} > 0) | ({a} > 0).type_as({a}) * {b}
{a} + ({a} > {b}) | ({a} > 0).sum(-1, keepdim=True) * {a} | (({a} > 0) + ({b} > 0)) * {a} | ({a} > 0).float()
({a} > 0).long() * {a} | ({a} > 0).int() / 2 | ({a} * 2).long() * 0.5 + {a} | ({a} * 3).to(torch.int32) * {b}
({a} * 3).int() % 2 + {a} | ({a} > 0).long() // 2 + {a} | ({a} > 0).double() | {a}.double() * {b}
{a}.half().to({a}.dtype) | {a}.bfloat16().to({a}.dtype) | {a}.float() * {b} | {a}.double().to({a}.dtype) | {a}.half()
(({a} > 0) ^ ({b} > 0)) * {a} | ({a} * 4).to(torch.uint8).to({a}.dtype) | ({a}.to(torch.int8) & 1) * {a} | {a} * {q}
{a} + {q}.to({a}.dtype) | torch.where({q}, {a}, {i}) | {a} + {i} | {a} * {i} * 0.1 | {a} / ({i} + 10) | {i} * {k}
{i}.to({a}.dtype) * 0.1 + {a} | ~{q} * {a} | {a}.masked_fill(~{q}, 0) | {q}.sum(-1, keepdim=True) * {a} * 0.3
{i} / 4 | F.one_hot({r}.argmax(-1), {r}.shape[1]).to({r}.dtype) | {r}.argmax(-1, keepdim=True) * 0.1 + {r}
{r}.gather(1, {r}.argmax(1, keepdim=True)) | {r}.argsort(-1) * 0.1
torch.bucketize({a}, torch.tensor([-0.5, 0.5])) * 0.3 + {a}
torch.zeros_like({r}).scatter(1, {r}.argmax(1, keepdim=True), 1.0) | {a}.isnan() * 1.0 + {a}
({a} > 0).any(-1, keepdim=True) * {a} | ({a} > -1).all(-1, keepdim=True).to({a}.dtype) + {a}
{q}.any(-1, keepdim=True) * {a} | torch.logical_xor({q}, {a} > 0) * {a} | F.embedding({i}.clamp(0, 0), {w})[..., 0, :]
F.embedding({i}.clamp(0, 0).flatten(1)[:, 0], {w}) | ({a} > 0).cumsum(-1) * 0.2
({a} > 0).to({a}.dtype).mean(-1, keepdim=True) | torch.logical_and({a} > 0, {b}) * {a}
torch.logical_not({a}) * 1.0 + {a} | {a}.sign().long() * {a} | {a}.ne({b}) * {a} | ({a} == {a}) * {b}
torch.isclose({a}, {b}) * {a} | {a}.bool() * {b}
"""

# constants, beside which stands the anchor
CONSTANTS = """
torch.zeros_like({a}) | torch.ones_like({a}) | torch.full_like({a}, {k}) | {a}.new_zeros({a}.shape)
{a}.new_ones({a}.shape[0], 1) | {a}.new_full(({a}.shape[0], 1), {k}) | torch.zeros({a}.shape, dtype={a}.dtype)
torch.empty_like({a}).fill_({k}) | torch.zeros_like({a}).add_({k}) | torch.zeros_like({a}) + {k}
torch.full({a}.shape, {k}) | torch.zeros_like({a}).fill_({p}[0].item()) | torch.arange({n})
torch.arange({n}, dtype={a}.dtype) * 0.2 | torch.tensor({k}) | torch.tensor([{k}] * {n}) | torch.linspace(0, 1, {n})
torch.tensor([{k}] * {n}, dtype={a}.dtype) | torch.as_tensor(np.sqrt(3.0)) | np.sqrt(3.0) | np.float32(0.5)
np.float64(0.25) | np.int64(2) | torch.from_numpy(np.arange({n}) * 0.1) | torch.tensor(np.float32(0.7))
torch.tensor(True) | torch.tensor(3) | {a}.new_tensor(0.3) | torch.eye({n})[0]
torch.eye({n}, dtype={a}.dtype).sum(0) | torch.tril(torch.ones({n}, {n}))[-1] * 0.5 | torch.ones({n}) * {k}
torch.scalar_tensor({k}) | torch.full((), {k}, dtype={a}.dtype) | {p}.detach() | {p}.sum() | {p}.abs().max()
{p}.new_zeros({n}) | {p} * {p} | {B} | {B} | {B} | {B} | {B} | {B} | torch.zeros_like({p})
torch.ones_like({a}[..., :1]) | F.linear(torch.zeros_like({a}), {z}, {p}) | F.linear(torch.ones_like({a}), {z})
torch.zeros_like({a}) @ {z} | F.linear(torch.full_like({a}, {k}), {z}, {p}) | torch.zeros_like({a}).tanh()
torch.triu(torch.ones({n}, {n}, dtype={a}.dtype)).sum(0) * 0.2 | torch.ones_like({a}).cumsum(-1) * 0.1
torch.zeros_like({a}, dtype=torch.long) | torch.ones_like({a}, dtype=torch.bool)
torch.arange({n}, device={a}.device).flip(0) * 0.1 | torch.zeros_like({a}).softmax(-1) | torch.range(1, {n}) * 0.1
"""

WITH_CONSTANTS = """
{a} + {C} | {a} * {C} | {C} - {a} | {a} / ({C} + 1.5) | torch.tanh({a} + {C}) | torch.where({a} > {C}, {a}, {b})
torch.maximum({a}, {C} * torch.ones_like({a})) | {a} + {b} / ({C} + 2) | torch.tanh({a} + {b} / {C})
{C} * {a}.sigmoid() + {b} | torch.cat([{a}, torch.zeros_like({a}[..., :1])], -1)
torch.cat([torch.ones_like({a}), {a}], -1) | torch.stack([{a}, torch.zeros_like({a})], 1)
torch.cat([{r}, {r}.new_zeros({r}.shape[0], 2)], 1) | torch.cat([{r}, {p}.expand({r}.shape[0], -1)], 1)
{a} * self.alpha + {C} | {a} * (1 if self.flag else 2) | {a}.pow(self.order) * 0.3 if self.flag else {a} | {a} * SCALE
{a} * self.beta | half({a}) + {b} | self.helper({a}) | {a} * self.settings.scale
{a} + (0.2 if self.settings.mode is Mode.SOFT else 0.4) | self.act({a}) | self.act({a}) * {b}
torch.addcmul({a}, {b}, {p} * 0 + {C}) | torch.lerp({a}, {b}, {C} * 0 + 0.3) | {a}.clamp(max=float({k}))
{a}.masked_fill(torch.tensor([True] + [False] * ({n} - 1)), 0.1) | {a} * torch.tensor([True] + [False] * ({n} - 1))
torch.where({B} > 0, {a}, {b}) | {r}[:, self.order_of({r})] | {r}[:, [0, -1]]
{r}.index_select(1, torch.tensor([0, 0])) | F.embedding(torch.tensor(0), {w})[..., :1] + {a}
{a} + F.embedding(torch.zeros({a}.shape[0], dtype=torch.long), {p}.unsqueeze(0)).sum(-1).view(-1, *[1] * ({a}.dim() - 1))
{r}.gather(1, torch.zeros({r}.shape[0], 1, dtype=torch.long))
{r}.gather(1, torch.tensor([[0]]).expand({r}.shape[0], -1)) | torch.take_along_dim({r}, torch.tensor([[0]]), 1)
{a} * torch.finfo({a}.dtype).eps + {b} | {a} / {a}.shape[-1] | {a} * ({a}.shape[-1] ** -0.5)
"""

# what a cell holds, of every type
HELD = """
{a} + {B} | {a} * {B} | torch.tanh({a} + {b} / ({B} + 3)) | {a} / ({B} + 3) | {B} - {a}
torch.where({B} > 0, {a}, {b}) | {a}.masked_fill({B} > 0.5, 0.3) | torch.maximum({a}, {B}) | {a} * {B}.to({a}.dtype)
torch.tanh({a} + {b} / {B}) | torch.cat([{r}, {B}.expand({r}.shape[0], {n}).to({r}.dtype)], 1)
torch.lerp({a}, {b}, {B}) | torch.addcmul({a}, {b}, {B}) | {a}.clamp(max={B}) | {a} ** {B} | {a} + {B}.sum() * 0.1
{a} * {B}.float() | {a}.sub({B}, alpha=2) | F.linear({r}, {z}, {B}) | {a} * {B}.bool() | {a} + ({B} * {B}) * 0.1
{a}.mul({B}).tanh() | torch.where({q}, {a}, {B}) | {r}.index_select(1, {B}.long().clamp(0, 0).flatten())
{a} * {B}.double() | {a}.eq({B}) * {b} | F.layer_norm({r}, ({n},), {B}, None, 0.1) | {a} % ({B} + 3)
torch.outer({r}[:, 0], {B})
"""

# whole statements; {v} is what they make
STATEMENTS = [
    "{v} = {a}.clone()\n{v}[..., 0] = {k}",
    "{v} = {a}.clone()\n{v}[..., :1] = {b}[..., :1]",
    "{v} = {a}.clone()\n{v} += {b}",
    "{v} = {a} * 1\n{v} *= 0.5",
    "{v} = {a}.clone()\n{v}.mul_({k}).add_({b})",
    "{v} = {a}.clone()\n{v}_w = {v}[..., :1]\n{v}_w.mul_(2)",
    "{v} = {a}.clone()\n{v}_w = {v}.view(-1)\n{v}_w.add_(0.1)",
    "{v} = {a}.clone()\n{v}[{v} > 0] = {k}",
    "{v} = {a} * 1\n{v}.masked_fill_({q}, 0.3)",
    "{v} = torch.zeros_like({a})\n{v}[..., 0] = {a}[..., 0]",
    "{v} = torch.zeros_like({a})\n{v} += {a}",
    "{v} = {a}.new_zeros({a}.shape)\n{v}.copy_({a})",
    "{v} = torch.empty_like({a})\n{v}.copy_({a})",
    "{v} = {a} + 0\n{v}.tanh_()",
    "{v} = F.relu({a} * 1, inplace=True)",
    "{v} = {a}.clone()\n{v}.clamp_(-0.5, 0.5)",
    "{v} = {a}.clone()\n{v}.zero_()\n{v} = {v} + {b}",
    "{v} = {a}.clone()\n{v}.t_() if {v}.dim() == 2 else None\n{v} = {v}.t() if {v}.dim() == 2 else {v}",
    "with torch.no_grad():\n    {v} = torch.tanh({a})\n{v} = {v} * {b}",
    "with torch.no_grad():\n    {v} = torch.empty_like({a})\n    torch.tanh({a}, out={v})",
    "with torch.no_grad():\n    {v} = {a} * 0.5 + 0.1",
    "{v} = {a}.detach()\n{v} = {v} * {b}",
    "with torch.enable_grad():\n    {v} = {a} * {b}",
    "{v} = Doubled.apply({a})",
    "{v} = Straight.apply({a}) + {b}",
    "{v} = self.watch('{v}', torch.tanh({a}))",
    "{v}_1, {v}_2 = {r}.chunk(2, -1)\n{v} = torch.sigmoid({v}_1) if {v}_1.shape[-1] > 2 else {v}_1 + {v}_2",
    "{v}_i, {v}_f, {v}_g = F.linear({r}, {w}, {o}).repeat(1, 3).chunk(3, -1)\n"
    "{v} = {v}_i.sigmoid() * {v}_g.tanh() + {v}_f.sigmoid()",
    "{v} = {a}\nfor {v}_k in range(self.order):\n    {v} = torch.tanh({v} + {b})",
    "if self.flag:\n    {v} = {a} * {b}\nelse:\n    {v} = {a} + {b}",
    "if {a}.dim() > 2:\n    {v} = {a}.sum(1)\nelse:\n    {v} = {a} * 0.5",
    "{v} = {a}.register_hook(lambda g: g) and {a} if False else {a} * 0.9",
    "{v} = torch.vmap(torch.tanh)({a})",
    "{v} = torch.utils.checkpoint.checkpoint(torch.tanh, {a}, use_reentrant=False)",
    "{v} = rearrange({r}, 2)",
    "{v} = self.inner({r})",
    "{v} = self.inner({r})",
    "{v} = self.inner({r}) * {b}",
    "{v} = self.inner_cell({r})",
    "{v} = self.inner_cell({r})",
    "{v} = {a} * 0.5 if {a}.requires_grad else {a} * 0.5",
    "{v} = {a}\n{v}_old = {v}\n{v} = {v} + 0.1\n{v} = {v} * {v}_old",
    "{v} = torch.zeros({a}.shape[0], {n}, dtype={a}.dtype)\n{v}[:, 0] += 1\n{v} = {r} + {v}",
    "{v} = {r}.new_zeros({r}.shape[0], 3)",
    "{v} = {r}.new_zeros(len({r}), {n}) + {r}",
    "{v} = torch.zeros(({r}.shape[0], {n}), dtype={r}.dtype, requires_grad=True) + {r}",
]

# what mixes the sequences of a batch, so that a loop a sequence would be another thing
MIXING = [
    "{v} = {a} * float({a}.detach().numpy().max()) * 0.1",
    "{v} = {a} * 0.5 if {a}.detach().numpy().sum() > 0 else {a} * 0.7",
    "{v} = {a} * 0.5 if {a}.detach().flatten().tolist()[0] > 0 else {a} * 0.7",
    "{v} = {a} * np.abs({a}.detach().numpy()).mean() * 0.2",
    "{v} = {a} - {a}.mean(0)",
    "{v} = {a} - {a}.mean(0, keepdim=True)",
    "{v} = {a} / ({a}.abs().max() + 1)",
    "{v} = {a} + {r}.sum(0).sum() * 0.1",
    "{v} = {a}.softmax(0)",
    "{v} = {a} * {a}.shape[0]",
    "{v} = {a}.cumsum(0) * 0.2",
    "{v} = {a}.flip(0)",
    "{v} = torch.roll({a}, 1, 0)",
    "{v} = ({r} @ {r}.t()).softmax(-1) @ {r}",
    "{v} = {a}[:1] + {a}",
    "{v} = {a} * torch.arange({a}.shape[0]).view(-1, *[1] * ({a}.dim() - 1)) * 0.1",
    "if {a}.sum() > 0:\n    {v} = {a} * 0.5\nelse:\n    {v} = {a} * 0.7",
    "{v} = {a} * (0.5 if bool(({a} > 0.3).any()) else 0.7)",
    "{v} = {a} * {a}.abs().max().item() * 0.1",
    "{v} = {a} * float({a}[0].flatten()[0]) * 0.1",
    "{v} = {a} if torch.allclose({a}, {b}) else {a} * 0.9",
    "{v} = F.batch_norm({r}, None, None, training=True, eps=0.5)",
    "{v} = {a} * (0.3 if {a}.shape[0] > 3 else 0.6)",
    "{v} = {a}.clone()\n{v}[0] = {k}",
    "{v} = torch.tensor({a}.abs().flatten().tolist()[:1]).to({a}.dtype) * 0.1 + {a}",
    "assert bool(torch.isfinite({a}).all())\n{v} = {a} * 0.9",
    "{v} = {a} + torch.from_numpy({a}.detach().numpy()).mean() * 0.2",
    "{v} = {a}[torch.arange({a}.shape[0] - 1, -1, -1)]",
    "{v} = {a} + torch.nonzero({a} > 0).shape[0] * 0.01",
]

# what fails in the loop too
RAISING = [
    "{v} = {r} @ torch.ones(97, 3)",
    "{v} = {a}.view(-1, 997)",
    "raise ValueError('not today')",
    "{v} = {a} + torch.ones(89)",
    "{v} = {r} @ torch.ones({n}, 2, dtype=torch.int64)",
    "{v} = self.missing * {a}",
    "{v} = {a}[:, 999]",
    "{v} = torch.full_like({a}, 'x')",
]

# what a cell counts or reads that is no tensor of its own
COUNTING = [
    "self.t += 1\n{v} = {a} * (0.3 + 0.1 * self.t)",
    "self.seen.append(1)\n{v} = {a} * (0.2 + 0.1 * len(self.seen))",
    "self.last = {a}.detach().sum()\n{v} = {a} * 0.9",
    "self.count.add_(1)\n{v} = {a} * 0.9",
    "self.count += 1\n{v} = {a} / (1 + self.count)",
    "self.t = 3 - self.t\n{v} = {a} * (0.3 if self.t > 1 else 0.5)",
]

# [n]-wide buffers or plain tensors; the first word is how it is held
BUFFERS = """
torch.tensor(4) | torch.tensor(0.7) | torch.tensor(True) | torch.as_tensor(np.sqrt(3.0))
torch.tensor(2, dtype=torch.uint8) | torch.tensor(1.5, dtype=torch.float16) | torch.tensor(0.3, dtype=torch.bfloat16)
torch.tensor(0.3, dtype=dtype) | rand({seed}, {n}) > 0 | torch.arange({n}) | torch.arange({n}, dtype=torch.uint8)
torch.arange({n}, dtype=torch.int8) | torch.arange({n}, dtype=torch.int16) - 1 | torch.arange({n}, dtype=torch.int32)
rand({seed}, {n}).half() | rand({seed}, {n}).bfloat16() | rand({seed}, {n}).float() | rand({seed}, {n})
rand({seed}, {n}).to(dtype) | rand({seed}, {n}).to(dtype) | rand({seed}, {n}, 2).to(dtype)[:, 0]
rand({seed}, 2 * {n}).to(dtype)[::2] | rand({seed}, 1).to(dtype).expand({n}) | rand({seed}, 2, {n}).to(dtype)[1]
rand({seed}, 1, {n}).to(dtype) | rand({seed}, 1).to(dtype) | rand({seed}, {n}, 3).to(dtype).t()[:1]
torch.ones(1, dtype=torch.int64) | torch.ones({n}, 2, dtype=torch.int64)[:, 1] | torch.tensor([1.0] * {n})
torch.eye({n}, dtype=dtype)[0] | rand({seed}, {n}, 1).to(dtype)[:, 0] | torch.full(({n},), 0.5) | torch.zeros(0)
torch.zeros(0, {n}, dtype=torch.int64) | torch.ones(({n}), dtype=dtype, requires_grad=True)
"""

ACTIVATIONS = [
    "torch.tanh",
    "F.relu",
    "functools.partial(F.leaky_relu, negative_slope=0.2)",
    "make_scaled(0.4)",
    "lambda v: v * v.sigmoid()",
    "nn.Tanh()",
    "nn.GELU()",
    "nn.Sequential(nn.Tanh(), nn.Hardtanh())",
    "Scaled(0.6)",
    "half",
    "torch.nn.functional.silu",
    "nn.ReLU(inplace=False)",
    "functools.partial(torch.clamp, min=-0.5)",
]

# modules [n] -> [n] or wider; {o} is drawn
INNER = [
    "nn.Linear({n}, {o})",
    "nn.Linear({n}, {o}, bias=False)",
    "nn.Sequential(nn.Linear({n}, 4), nn.Tanh(), nn.Linear(4, {o}))",
    "nn.LayerNorm({n}, eps=0.1)",
    "nn.RMSNorm({n}, eps=0.1)",
    "Stack(nn.ModuleList([nn.Linear({n}, {n}) for _ in range(2)]))",
    "parametrizations.weight_norm(nn.Linear({n}, {o}))",
    "parametrizations.orthogonal(nn.Linear({n}, {n}))",
    "nn.Identity()",
    "parametrizations.spectral_norm(nn.Linear({n}, {o})).eval()",
    "nn.Dropout(0.5).eval()",
    "nn.PReLU()",
    "tied(nn.Linear({n}, {n}), nn.Linear({n}, {n}))",
    "nn.Softmax(-1)",
    "nn.GLU(-1)",
    "nn.GroupNorm(1, {n}, eps=0.1)",
]

INNER_CELLS = [
    "nn.GRUCell({n}, {n})",
    "nn.RNNCell({n}, {n})",
    "tt.cells.GRU({n}, {n})",
    "tt.cells.MinimalGated({n}, {n})",
    "nn.LSTMCell({n}, {n})",
    "tt.cells.LSTM({n}, {n})",
    "tt.cells.LayerNormGRU({n}, {n})",
]

PRELUDE = """import dataclasses
import enum
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn
from torch.nn.utils import parametrizations

import throughtime as tt

SCALE = 0.8


def rand(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def half(v):
    return v * 0.5


def make_scaled(k):
    def scaled(v):
        return torch.tanh(k * v)

    return scaled


def rearrange(v, parts):
    return v.reshape(v.shape[0], parts, -1).transpose(1, 2).reshape(v.shape[0], -1)


def tied(one, other):
    other.weight = one.weight
    return nn.Sequential(one, nn.Tanh(), other)


class Mode(enum.Enum):
    SOFT = 1
    HARD = 2


@dataclasses.dataclass
class Settings:
    scale: float
    mode: Mode


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, v):
        return v * self.scale


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, v):
        for layer in self.layers:
            v = torch.tanh(layer(v)) + v
        return v


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return v * 2

    @staticmethod
    def backward(ctx, g):
        return g * 3


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return v.round()

    @staticmethod
    def backward(ctx, g):
        return g
"""


def entries(table: str) -> list[str]:
    """The expressions of a table."""
    return [e.strip() for line in table.splitlines() for e in line.split(" | ") if e.strip()]
