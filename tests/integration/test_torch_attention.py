# SPDX-License-Identifier: BSD-3-Clause
"""Attention of PyTorch, read by from_torch: gradients of every weight against autograd, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_attention import KINDS, Block, Fused, Reading, attention, triangle

import pykernel as pk

EXACT = 1e-9  # decades in float64


def gradients_of(module, chain, x, cotangent):
    """The Frobenius norm of the gradient of each of the chain's layers, log10, by its own autograd."""
    from pykernel.bridges.torch_graph import read

    x = torch.tensor(x, requires_grad=True)
    module.zero_grad()
    (module(x) * torch.tensor(cotangent)).sum().backward()
    layers = read(module).layers
    weights = [source.weight.grad[slice(*source.rows)].norm().item() for source in layers]
    biases = [np.nan if s.bias is None else s.bias.grad[slice(*s.rows)].norm().item() for s in layers]
    with np.errstate(divide="ignore"):
        return x.grad.norm().log10().item(), np.log10(weights), np.log10(biases)


def check(module, *, n, batch, length, outputs, over="positions", backend="auto"):
    module = module.double()
    rng = np.random.default_rng(length)
    x = rng.normal(size=(batch, length, n))
    cotangent = rng.normal(size=(batch, length, outputs) if over == "positions" else (batch, outputs))
    chain = pk.from_torch(module, weights=True)
    inputs, weights, biases = gradients_of(module, chain, x, cotangent)
    p = pk.propagate(
        chain,
        x=np.moveaxis(x, 2, 1),
        cotangent=np.moveaxis(cotangent, 2, 1) if over == "positions" else cotangent,
        batch_first=True,
        positions=length,
        dtype="float64",
        engine="dense",
        backend=backend,
    )
    told = weights > weights.max() - 10  # one position leaves query and key without a gradient
    np.testing.assert_allclose(p.log10_grad_weight[0][told], weights[told], atol=EXACT)
    assert (p.log10_grad_weight[0][~told] < weights.max() - 10).all()
    has = ~np.isnan(biases) & (biases > weights.max() - 10)  # a key's bias changes nothing
    np.testing.assert_allclose(p.log10_grad_bias[0][has], biases[has], atol=EXACT)
    assert p.log10_grad_activation[0, 0] == pytest.approx(inputs, abs=EXACT)
    return chain


@pytest.mark.parametrize("seed", range(40))
def test_random_blocks_have_the_gradients_of_autograd(seed):
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[rng.integers(len(values))]
    torch.manual_seed(seed)
    kind = KINDS[seed % len(KINDS)]
    heads = pick(1, 2, 4)
    kv_heads = pick(*(k for k in (1, 2, 4) if heads % k == 0))
    n, length, batch, causal = 4 * pick(1, 2, 3), int(rng.integers(1, 18)), int(rng.integers(1, 4)), pick(True, False)
    over = pick("positions", "first", "last", "mean")
    make = lambda: attention(kind, n, heads, kv_heads, causal, 17)
    blocks = [Block(make(), n, pick(True, False), act=pick(nn.GELU, nn.ReLU)) for _ in range(pick(1, 2))]
    chain = check(Reading(blocks, n, over), n=n, batch=batch, length=length, outputs=3, over=over)
    assert chain.head.over == over
    steps = [step for block in chain.blocks + chain.first for step in block.steps if isinstance(step, pk.Attention)]
    assert {step.causal for step in steps} == {causal and kind != "vision"}
    assert {step.heads for step in steps} == {1 if kind == "one head" else heads}
    if kind in ("gqa", "expand", "repeat"):
        assert {step.kv_heads or step.heads for step in steps} == {kv_heads}


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("act", ["relu", "gelu", F.silu])
def test_encoder_layers_and_encoders(norm_first, act):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, activation=act, norm_first=norm_first, batch_first=True)
    chain = check(layer.eval(), n=8, batch=2, length=5, outputs=8)
    assert chain.depth == 1
    encoder = nn.TransformerEncoder(layer, 3, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    chain = check(encoder.eval(), n=8, batch=2, length=5, outputs=8)
    assert (chain.depth, len(chain.layers)) == (3, 18)


class Masked(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.encoder(x, mask=mask, is_causal=True)


def test_a_mask_of_the_encoder_is_read():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, norm_first=True, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    chain = check(Masked(encoder), n=8, batch=2, length=5, outputs=8)
    assert chain.depth == 2 and "causal" in str(chain)


def test_schemes_are_recognised():
    """MultiheadAttention draws query, key and value by one glorot over the stacked matrix: half of 1/n."""
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, norm_first=True, batch_first=True)
    with torch.no_grad():  # its copies are equal: each gets a draw of its own
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        for one in encoder.layers:
            one.self_attn._reset_parameters(), one.self_attn.out_proj.reset_parameters(), one.linear1.reset_parameters()
            one.self_attn.out_proj.bias.zero_(), one.linear2.reset_parameters()
    with pytest.raises(ValueError, match=r"biases .*weights=True"):
        pk.from_torch(encoder)  # zero beside query, torch's own in the other layers: of one Attention they are alike
    chain = pk.from_torch(encoder, init="torch_linear_default")
    assert chain.depth == 2


def test_gpt2_init_is_recognised():
    torch.manual_seed(2)
    blocks = [Block(Fused(32, 4, True, 8, True), 32, True) for _ in range(3)]
    for block in blocks:
        for name, parameter in block.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                std = 0.02 / 6**0.5 if name in ("attn.c_proj.weight", "mlp.2.weight") else 0.02
                nn.init.normal_(parameter, std=std)
            elif parameter.ndim == 1 and "ln" not in name:
                nn.init.zeros_(parameter)
    chain = pk.from_torch(nn.Sequential(*blocks))
    assert chain.depth == 3
    step = chain.blocks[0].steps[1]
    assert (step.heads, step.causal) == (4, True)
    scale = lambda init: (init or chain.init).scale(32, 32)
    assert scale(step.init) == pytest.approx(0.02, rel=0.05)
    assert scale(step.output) == pytest.approx(0.02 / 6**0.5, rel=0.05)


class Calls(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.norm, self.attn, self.call = nn.LayerNorm(4), nn.MultiheadAttention(8, 2, batch_first=True), forward
        self.table = nn.Parameter(torch.zeros(1, 5, 8))

    def forward(self, x):
        return self.call(self, x)

    def heads(self, x, turn=lambda z: z):
        split = lambda z: z.unflatten(-1, (2, 4)).transpose(1, 2)
        return turn(split(self.q(x))), turn(split(self.k(x))), split(self.v(x))

    def together(self, y):
        return self.out(y.transpose(1, 2).flatten(2))


def window(t):
    i = torch.arange(t)
    return (i[:, None] - i[None, :]).abs() <= 1


REFUSED = [
    (lambda m, x: m.attn(x, m.k(x), m.v(x))[0], "cross-attention"),
    (
        lambda m, x: m.together(F.scaled_dot_product_attention(*m.heads(x), attn_mask=window(x.size(1)))),
        "not the causal",
    ),
    (lambda m, x: m.together(F.scaled_dot_product_attention(*m.heads(x), dropout_p=0.1)), "drops attention weights"),
    (lambda m, x: m.together(F.scaled_dot_product_attention(*m.heads(x, lambda z: m.norm(z)))), "layers and norms"),
    (
        lambda m, x: m.together(F.scaled_dot_product_attention(*m.heads(x, lambda z: z * torch.ones(5, 4).cos()))),
        "rotary positions",
    ),
    (lambda m, x: m.attn(x + m.table, x + m.table, x + m.table)[0], "tables of positions are part of x"),
    (lambda m, x: (m.q(x) @ m.k(x).transpose(1, 2)) @ m.v(x), "without a softmax"),
    (lambda m, x: torch.relu((m.q(x) @ m.k(x).transpose(1, 2)).softmax(-1) @ m.v(x)), "no Linear follows"),
    (lambda m, x: m.out((m.q(x) @ m.k(x).transpose(1, 2)).softmax(1) @ m.v(x)), "not over the keys"),
    (lambda m, x: torch.tanh(m.attn(x, x, x)[0])[:, -1], "no last Linear reads it"),
    (lambda m, x: m.out(torch.relu(m.attn(x, x, x)[0].mean(1))), "without a step between"),
]


@pytest.mark.parametrize(("forward", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_no_attention_of_a_chain_is_refused(forward, message):
    with pytest.raises(ValueError, match=message):
        pk.from_torch(nn.Sequential(Calls(forward)).eval(), weights=True)


def test_dropout_on_attention_weights_is_refused_in_training():
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1)
    with pytest.raises(ValueError, match="drops attention weights"):
        pk.from_torch(layer)
    with pytest.raises(ValueError, match="looks its input up"):
        pk.from_torch(nn.Sequential(nn.Embedding(5, 8), layer.eval()), init="he_normal")
    assert triangle(2)[0, 1] == 0
