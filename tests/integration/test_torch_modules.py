# SPDX-License-Identifier: BSD-3-Clause
"""Everyday PyTorch modules read into chains: the gradients of autograd, the pattern that is found, what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_modules import KINDS, Mlp

import pykernel as pk
from pykernel.bridges.torch_graph import read
from pykernel.layers import Block, Dropout, Gated, Linear, Norm, Scale

EXACT = 1e-9  # decades, float64: a few layers, sums of tens of terms


def assert_the_gradients_of_autograd(module, inputs, backend="reference", batch=5):
    """Of every weight and bias of the chain, and of the input."""
    module = module.double()
    module.zero_grad()
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(batch, inputs, dtype=torch.float64, generator=generator, requires_grad=True)
    c = torch.randn(module(x).shape, dtype=torch.float64, generator=generator)
    (module(x) * c).sum().backward()
    layers = read(module).layers
    norm = lambda source, parameter: 0.0 if parameter is None else parameter.grad[slice(*source.rows)].norm().item()
    weights, biases = (np.array([norm(s, getattr(s, name)) for s in layers]) for name in ("weight", "bias"))
    chain = pk.from_torch(module, weights=True)
    p = pk.propagate(chain, x=x, cotangent=c, batch_first=True, dtype="float64", backend=backend)
    np.testing.assert_allclose(p.log10_grad_weight[0], np.log10(weights), atol=EXACT)
    own = biases > 1e-12 * weights  # behind a batch norm the gradient is rounding
    np.testing.assert_allclose(p.log10_grad_bias[0][own], np.log10(biases[own]), atol=EXACT)
    np.testing.assert_allclose(p.log10_grad_activation[0, 0], np.log10(x.grad.norm().item()), atol=EXACT)
    return chain


@pytest.mark.parametrize("backend", ["reference", "cpp"])
@pytest.mark.parametrize("kind", KINDS)
def test_everyday_modules_have_the_gradients_of_autograd(kind, backend):
    torch.manual_seed(1)
    module = KINDS[kind]()
    assert_the_gradients_of_autograd(module, 5 if kind == "ModuleList" else 6, backend)


MLP = Block(Norm("layer"), Linear(12), "gelu", Linear(6), skip=1.0)
PATTERNS = {
    "autoencoder with a sigmoid at the end": dict(
        widths=[6, 5, 3, 5, 6], activation=["relu", "relu", "relu", "sigmoid"]
    ),
    "pre-norm blocks": dict(
        width=6, depth=3, blocks=[MLP], last=[Norm("layer")], head=pk.Head("linear", 3, "he_normal")
    ),
    "post-norm blocks": dict(
        width=6, depth=3, blocks=[Block(Linear(12), "gelu", Linear(6), skip=1.0, after=Norm("layer"))]
    ),
    "SwiGLU blocks": dict(
        width=6,
        depth=2,
        blocks=[Block(Norm("rms", 2.0**-23), Gated(8), Linear(6), skip=1.0)],
        last=[Norm("rms", 2.0**-23)],
    ),
    "SIREN": dict(
        width=6, depth=3, blocks=[Block(Linear(6), Scale(30.0), "sin")], head=pk.Head("linear", 2, "he_normal")
    ),
    "ReLU after the sum": dict(width=6, depth=3, blocks=[Block(Linear(6), "relu", Linear(6), skip=1.0, after="relu")]),
    "projection": dict(
        width=6,
        depth=2,
        first=[Block(Linear(4), "relu", Linear(4), skip=[Linear(4)], scale=0.5)],
        blocks=[Block(Linear(4), "relu", Linear(4), skip=1.0)],
    ),
    "DeepNorm": dict(width=6, depth=3, blocks=[Block(Linear(6), "relu", Linear(6), skip=6**0.25, after=Norm("layer"))]),
    "(x + f) / sqrt 2": dict(
        width=6,
        depth=3,
        blocks=[Block(Linear(6), "relu", Linear(6), skip=0.5**0.5, scale=0.5**0.5)],
        head=pk.Head("linear", 2, "he_normal"),
    ),
    "ModuleList": dict(
        width=5, depth=3, first=[Linear(6)], blocks=[MLP], last=[Norm("layer")], head=pk.Head("linear", 3, "he_normal")
    ),
    "LayerScale as it begins": dict(
        width=6,
        depth=2,
        blocks=[Block(Norm("layer"), Linear(12), "gelu", Linear(6), skip=1.0, scale=float(np.float32(0.01)))],
    ),
    "F.linear": dict(width=6, depth=2, blocks=[Block(Linear(6), "relu", Scale(-0.5))]),
}


@pytest.mark.parametrize("kind", PATTERNS)
def test_repetition_is_found(kind):
    found, wanted = pk.from_torch(KINDS[kind](), init="he_normal"), pk.Chain(**PATTERNS[kind])
    if kind == "(x + f) / sqrt 2":  # 1 / sqrt(2) is not sqrt(1 / 2) to the last bit
        assert found.blocks[0].skip == found.blocks[0].scale == pytest.approx(0.5**0.5, rel=1e-15)
        assert (found.depth, found.blocks[0].steps) == (3, wanted.blocks[0].steps)
    else:
        assert found == wanted


def test_dropout_in_training_mode_is_a_step():
    """The same mask, put into the module by hand, gives the gradients of autograd."""
    from pykernel import stream

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 2)
    ).double()
    chain = pk.from_torch(net, weights=True)
    assert [step for block in chain.blocks for step in block.steps if isinstance(step, Dropout)] == [Dropout(0.25)]
    x, c = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    kept = torch.from_numpy(np.asarray(stream.mask(3, 1, 0, 8, 5, 0.25), dtype=np.float64).T != 0).double() / 0.75
    y = net[3:](net[:2](x) * kept)
    (y * c).sum().backward()
    p = pk.propagate(chain, x=x, cotangent=c, batch_first=True, dtype="float64", seed=3)
    np.testing.assert_allclose(
        p.log10_grad_weight[0], [np.log10(net[i].weight.grad.norm().item()) for i in (0, 3)], atol=EXACT
    )
    assert pk.from_torch(net.eval(), weights=True).has_lists  # relu, then tanh, without dropout


def gpt(n=64, layers=4, std=0.02):
    """Pre-norm MLP blocks with GPT-2's scheme: the last layer of every branch smaller by sqrt(2 x blocks)."""
    torch.manual_seed(0)
    net = nn.Sequential(*(Mlp(n, hidden=4) for _ in range(layers)), nn.LayerNorm(n))
    for block in net[:-1]:
        nn.init.normal_(block.up.weight, std=std)
        nn.init.normal_(block.down.weight, std=std / (2 * layers) ** 0.5)
        for part in (block.up, block.down):
            nn.init.zeros_(part.bias)
    return net


def test_schemes_of_some_layers_are_found():
    chain = pk.from_torch(gpt())
    up, down = (step for step in chain.blocks[0].steps if isinstance(step, Linear))
    std = lambda step: (step.init or chain.init).scale(64, 256)
    assert chain.depth == 4
    assert (std(up), std(down)) == (pytest.approx(0.02, rel=0.02), pytest.approx(0.02 / 8**0.5, rel=0.02))
    net = gpt()
    with torch.no_grad():
        net[1].up.weight *= 1.5
    with pytest.raises(ValueError, match="no fresh draw of one scheme"):
        pk.from_torch(net)
    net = gpt()
    for block in net[:-1]:
        nn.init.zeros_(block.down.weight)
    assert [s.init.distribution for s in pk.from_torch(net).blocks[0].steps if isinstance(s, Linear) and s.init] == [
        "constant"
    ]
    torch.manual_seed(0)
    assert pk.from_torch(nn.Sequential(*(Mlp(64) for _ in range(3)))).init.name == "torch_linear_default"


@pytest.mark.parametrize("kind", ["pre-norm blocks", "GEGLU by split", "projection"])
def test_modules_of_blocks_take_the_bits_of_the_stream(kind):
    module = KINDS[kind]()
    chain = pk.init_torch_(module, "he_normal", seed=5, replica=2)
    network = read(module)
    sources = [*network.layers, *([network.head] if network.head else [])]
    for l, source in enumerate(sources, 1):
        expected = pk.weights(chain, layer=l, seed=5, replica=2, dtype="float32")
        np.testing.assert_array_equal(source.weight[slice(*source.rows)].detach().numpy(), expected)
    other = chain.replace(init="lecun_normal")
    assert pk.init_torch_(module, other, seed=5).init == other.init
    with pytest.raises(ValueError, match="weights alone cannot make up"):
        pk.init_torch_(module, pk.Chain(depth=3, width=6))


class Forward(nn.Module):
    def __init__(self, forward, *parts):
        super().__init__()
        self.parts, self._forward = nn.ModuleList(parts), forward

    def forward(self, x):
        return self._forward(self.parts, x)


def linears(*sizes):
    return [nn.Linear(n, m) for n, m in sizes]


SQUARE = linears(*[(4, 4)] * 4)
REFUSED = [
    (lambda m, x: m[0](x) * torch.tanh(x), "form no gate"),
    (lambda m, x: torch.tanh(m[0](x)) * torch.tanh(m[1](x)), "form no gate"),
    (lambda m, x: torch.tanh(m[0](x)) * m[1](m[2](x)), "form no gate"),
    (lambda m, x: m[0](x).chunk(2, dim=-1)[0], "its halves are no gate"),
    (lambda m, x: torch.relu(x).chunk(2, dim=-1)[0], "no output of a Linear"),
    (lambda m, x: m[0](x).chunk(4, dim=-1)[0], "not into halves"),
    (lambda m, x: m[0](x)[:, 1:], "takes something apart"),
    (lambda m, x: x + m[0](torch.relu(x + m[1](x))), "sum inside"),
    (
        lambda m, x: m[0](torch.relu(m[1](x))) + m[1](x),
        "layer parts.1 (Linear) is used again",
    ),
    (lambda m, x: dense(m, x), "two branches that do not meet"),
    (lambda m, x: torch.cat([x, m[0](x)], -1), "something that is no output of a layer"),
    (lambda m, x: torch.softmax(m[0](x), -1), "calls softmax, which a chain has not"),
    (lambda m, x: torch.tanh(m[0](x)) * m[1](x) + m[0](x), "is used again"),
    (lambda m, x: cut_and_whole(m[0](x)), "is used again"),
    (lambda m, x: m[0](x) / m[1](x), "divides by something that is no number"),
    (lambda m, x: m[0](x) + 1.0, "adds something that is no output of a layer"),
    (lambda m, x: torch.relu(m[0](x)) ** 2, "the output acts on a square, which a chain knows on the way into a norm"),
    (lambda m, x: x - x.mean(-1, keepdim=True), "acts on a difference from the mean"),
    (lambda m, x: x / x.var(-1, keepdim=True).sqrt(), "divides by one unit less than there are"),
    (lambda m, x: torch.tanh(x) + m[0].bias, "adds an array of its own to what is no output of a norm"),
    (lambda m, x: torch.log_softmax(m[0](x), -1), "a softmax belongs to the loss"),
    (lambda m, x: (m[0](x), m[1](x)), "returns tuple; a chain has one output"),
    (lambda m, x: m[0](x) if x.sum() > 0 else x, "torch.fx cannot follow its forward"),
]


def cut_and_whole(y):
    gate, value = y.chunk(2, dim=-1)
    return torch.tanh(gate) * value + F.relu(y[:, :2]) * y[:, 2:]


def dense(m, x):
    y = torch.relu(m[0](x))
    z = torch.tanh(m[1](y)) + x
    return m[2](y) + z


@pytest.mark.parametrize(("forward", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_is_no_chain_of_blocks_is_refused_with_its_place(forward, message):
    with pytest.raises(ValueError) as caught:
        pk.from_torch(nn.Sequential(Forward(forward, *SQUARE)), init="he_normal")
    assert message in str(caught.value).replace("layer 0.parts", "layer parts")


def test_a_tied_weight_with_two_biases_is_refused_by_name():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU())
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match=r"layer 0 \(Linear\) and layer 2 \(Linear\) share a weight and not"):
        pk.from_torch(net, weights=True)


def added(m, x):
    y = h = m[0](x)
    y += m[1](torch.relu(h))
    return torch.tanh(y) * 0.5 + h.mul(2.0)


IN_PLACE = {
    "a branch that begins in place": (
        lambda m, x: (lambda z: z + m[1](F.relu(z, inplace=True)))(m[0](x)),
        [Linear(6), "relu"],
    ),
    "a module": (lambda m, x: (lambda z: m[2](z) + z)(m[0](x)), [Linear(6), "relu", Scale(2.0)]),
    "a method": (lambda m, x: (lambda z: torch.tanh(z.relu_()) + z)(m[0](x)), [Linear(6), "relu"]),
    "a product": (lambda m, x: (lambda z: torch.tanh(z.mul_(2)) + z)(m[0](x)), [Linear(6), Scale(2.0)]),
    "a view": (lambda m, x: (lambda z: torch.tanh(z.view(-1, 6).relu_()) + z)(m[0](x)), [Linear(6), "relu"]),
    "a copy": (lambda m, x: (lambda z: torch.tanh(z.clone().relu_()) + z)(m[0](x)), [Linear(6)]),
    "a sum": (added, None),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_is_computed_in_place_is_seen_by_all_that_hold_it(kind):
    forward, begins = IN_PLACE[kind]
    torch.manual_seed(0)
    chain = assert_the_gradients_of_autograd(Forward(forward, *linears((6, 6), (6, 6)), nn.ReLU(inplace=True)), 6)
    if begins is not None:
        assert list(chain.blocks[0].steps) == list(Block(*begins).steps)


class Optional(nn.Module):
    """Arguments that stay at their defaults, keywords for inputs."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x, mask=None, *, double=False, factor=0.5):
        if mask is not None:
            x = x * mask
        x = torch.relu(input=self.linear(input=x))
        return torch.add(input=x, other=torch.mul(x, other=factor), alpha=2.0) if not double else x * 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m[0](x).clamp(min=0),
        lambda m, x: torch.clamp(m[0](x), -1, 1),
        lambda m, x: sum([x, torch.relu(m[0](x))]),
        lambda m, x: torch.relu(F.linear(x, m[0].weight) + m[0].bias),
        lambda m, x: torch.relu(m[0](x)).to(x.dtype),
    ],
)
def test_other_ways_to_write_a_step_are_read(forward):
    torch.manual_seed(0)
    assert_the_gradients_of_autograd(Forward(forward, *linears((6, 6))), 6)


def test_arguments_stay_at_their_defaults():
    assert_the_gradients_of_autograd(Optional(), 6)
    assert_the_gradients_of_autograd(nn.Sequential(Optional(), Optional()), 6)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: F.alpha_dropout(x, 0.5, True), "another rule than Dropout"),
        (nn.Dropout1d(0.5), "another rule than Dropout"),
        (nn.AlphaDropout(0.5), "another rule than Dropout"),
        (nn.Softplus(threshold=2), "without a threshold"),
        (lambda x: F.softplus(x, 1, 2), "calls softplus"),
        (lambda x: torch.div(x, 0.1, rounding_mode="floor"), "rounds"),
    ],
)
def test_what_only_looks_like_a_step_is_refused(forward, message):
    step = forward if isinstance(forward, nn.Module) else Forward(lambda m, x: forward(x))
    with pytest.raises(ValueError, match=message):
        pk.from_torch(nn.Sequential(nn.Linear(4, 4), step), init="he_normal")


def test_other_dropout_at_test_time_is_none():
    chain = pk.from_torch(
        nn.Sequential(nn.Linear(4, 4), nn.AlphaDropout(0.5), nn.Dropout1d(0.5), nn.Tanh()).eval(), init="he_normal"
    )
    assert chain == pk.Chain(depth=1, width=4, activation="tanh")
    call = Forward(
        lambda m, x: torch.dropout(F.alpha_dropout(torch.tanh(m[0](x)), 0.5), 0.5, train=False), nn.Linear(4, 4)
    )
    assert pk.from_torch(call, init="he_normal") == chain


def test_blocks_of_two_kinds_repeat():
    """One with an activation behind its sum, one without; at the end a norm that belongs to neither."""
    torch.manual_seed(0)
    both = lambda: (Forward(lambda m, x: torch.tanh(x + m[0](x)), nn.Linear(6, 6)), Mlp(6))
    chain = assert_the_gradients_of_autograd(nn.Sequential(*both(), *both(), nn.LayerNorm(6)), 6)
    assert (chain.depth, len(chain.first), len(chain.blocks), len(chain.last)) == (2, 0, 2, 1)
    layers = [part for _ in range(3) for part in (nn.Linear(6, 6), nn.ReLU())]
    chain = assert_the_gradients_of_autograd(nn.Sequential(*layers, nn.LayerNorm(6)), 6)
    assert (chain.depth, len(chain.last)) == (3, 1)


def test_a_norms_weight_and_bias_are_read():
    """As one number, such as a last norm of a branch that begins at zero or at 1/8, and as numbers of each unit."""
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 6), nn.BatchNorm1d(6))
    net = nn.Sequential(nn.Linear(6, 6), Forward(lambda m, x: torch.relu(x + m[0](x)), branch))
    nn.init.constant_(branch[4].weight, 0.125)
    chain = assert_the_gradients_of_autograd(net, 6)
    assert chain.blocks[-1] == Block(
        Linear(7), Norm("batch"), "relu", Linear(6), Norm("batch", weight=0.125), skip=1.0, after="relu"
    )
    nn.init.zeros_(branch[4].weight)
    assert pk.from_torch(net, weights=True).blocks[-1].steps[-1].weight == 0.0
    for parameter in (branch[1].weight, branch[1].bias, branch[4].weight, branch[4].bias):
        nn.init.uniform_(parameter)
    steps = assert_the_gradients_of_autograd(net, 6).blocks[-1].steps
    assert steps[1].weight == tuple(branch[1].weight.tolist()) and len(steps[-1].bias) == 6


def test_norms_of_repeated_blocks_are_rows():
    """Trained weights and biases differ from block to block, and `depth` still counts the blocks."""
    torch.manual_seed(0)
    net = nn.Sequential(*(Mlp(6) for _ in range(4)), nn.LayerNorm(6), nn.Linear(6, 3))
    for block in (net[0], net[2]):
        nn.init.uniform_(block.norm.weight)
    nn.init.normal_(net[1].norm.bias)
    nn.init.normal_(net[4].weight)
    chain = assert_the_gradients_of_autograd(net, 6)
    norm = chain.blocks[0].steps[0]
    assert (chain.depth, len(chain.blocks), np.shape(norm.weight), np.shape(norm.bias)) == (4, 1, (4, 6), (4, 6))
    assert norm.weight[1] == (1.0,) * 6 and norm.bias[0] == (0.0,) * 6
    assert pk.from_torch(net, weights=True) == chain
    assert pk.init_torch_(net, "he_normal").blocks == chain.blocks
    for i in range(4):
        nn.init.constant_(net[i].norm.weight, 0.5 + i)
        nn.init.zeros_(net[i].norm.bias)
    norm = assert_the_gradients_of_autograd(net, 6).blocks[0].steps[0]
    assert norm == Norm("layer", weight=[[0.5], [1.5], [2.5], [3.5]])


def test_layers_keep_the_names_that_the_module_has_for_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.gate, self.out = nn.Linear(8, 16), nn.Linear(16, 32), nn.Linear(16, 4)
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in "ab"])

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            left, right = self.gate(x).chunk(2, -1)
            return self.out(left.sigmoid() * right)

    net = Net()
    names = ("stem", "blocks.0.0", "blocks.0.2", "blocks.1.0", "blocks.1.2", "gate[0:16]", "gate[16:32]")
    chains = [pk.from_torch(net, weights=True), pk.from_torch(net, init="he_normal")]
    assert [chain.modules for chain in chains] == [names] * 2
    assert pk.init_torch_(net, "lecun_normal").modules == names
    attention = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0))
    read = pk.from_torch(attention, weights=True)
    assert read.modules[:2] == ("0.self_attn.in_proj[0:16]", "0.self_attn.in_proj[16:32]")
    assert read.modules[3:] == ("0.self_attn.out_proj", "0.linear1", "0.linear2")
    assert pk.from_torch(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), weights=True).modules == ("0",)
