# SPDX-License-Identifier: BSD-3-Clause
"""Modules that use a layer again and again, against PyTorch on the same weights: every use, and the sum."""

import numpy as np
import pytest

import pykernel as pk

torch = pytest.importorskip("torch")
nn = torch.nn
EXACT = 1e-9  # relative, in float64


class Recurrent(nn.Module):
    """One Linear, again and again."""

    def __init__(self, width=23, steps=7, outputs=4):
        super().__init__()
        self.linear, self.out, self.steps = nn.Linear(width, width), nn.Linear(width, outputs), steps

    def forward(self, x):
        for _ in range(self.steps):
            x = torch.tanh(self.linear(x))
        return self.out(x)


class Looped(nn.Module):
    """A pre-norm block, again and again, between layers of their own."""

    def __init__(self, width=20, steps=4):
        super().__init__()
        self.inward, self.out = nn.Linear(width, width), nn.Linear(width, 3)
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 33), nn.Linear(33, width)
        self.steps = steps

    def forward(self, x):
        x = self.inward(x)
        for _ in range(self.steps):
            x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.out(x)


class SameParameter(nn.Module):
    """Two modules that hold one Parameter."""

    def __init__(self, width=18):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))))


def repeated(width=16, times=5):
    layer = nn.Linear(width, width)
    return nn.Sequential(*(part for _ in range(times) for part in (layer, nn.Tanh())))


class Calls(torch.overrides.TorchFunctionMode):
    """Every call of a Linear gets copies of its weight and bias, so that each use has gradients of its own."""

    def __init__(self):
        super().__init__()
        self.weights, self.biases = [], []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is nn.functional.linear:
            x, weight, bias = arguments
            self.weights.append(weight.clone())
            self.biases.append(bias.clone())
            self.weights[-1].retain_grad(), self.biases[-1].retain_grad()
            return function(x, self.weights[-1], self.biases[-1])
        return function(*arguments, **(keywords or {}))


MODULES = {"recurrent": Recurrent, "looped": Looped, "one parameter": SameParameter, "repeated": repeated}


@pytest.mark.parametrize("backend", ["reference", "cpp", "numba"])
@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_uses_and_their_sum(name, backend):
    torch.manual_seed(3)
    module = MODULES[name]().double()
    chain = pk.from_torch(module, weights=True)
    assert chain.tied
    width = next(module.parameters()).shape[1]
    x = torch.randn(5, width, dtype=torch.float64)
    with Calls() as calls:
        y = module(x)
    cotangent = torch.randn_like(y)
    (y * cotangent).sum().backward()
    p = pk.propagate(
        chain, x=x, cotangent=cotangent, batch_first=True, backend=backend, engine="dense", dtype="float64"
    )
    uses = len(chain.layers)  # the head, where there is one, is called behind them
    for row, grads in ((p.log10_grad_weight, calls.weights), (p.log10_grad_bias, calls.biases)):
        expected = [part.grad.norm().item() for part in grads[:uses]]
        np.testing.assert_allclose(10 ** row[0], expected, rtol=EXACT)
    totals = list(dict.fromkeys(part for part in modules_of(module)))[: len(chain.tied_layers)]
    expected = [part.weight.grad.norm().item() for part in totals], [part.bias.grad.norm().item() for part in totals]
    np.testing.assert_allclose(10 ** p.log10_grad_weight_total[0], expected[0], rtol=EXACT)
    np.testing.assert_allclose(10 ** p.log10_grad_bias_total[0], expected[1], rtol=EXACT)
    gradients = pk.gradients(chain, x=x, cotangent=cotangent, batch_first=True)
    for found, part in zip(gradients, totals, strict=True):
        np.testing.assert_allclose(found, part.weight.grad.numpy(), rtol=EXACT, atol=1e-12)


def modules_of(module):
    """The Linear layers in order of first use."""
    order = {Looped: ("inward", "up", "down", "out"), Recurrent: ("linear", "out"), SameParameter: ("first",)}
    if type(module) in order:
        return [getattr(module, name) for name in order[type(module)]]
    return [module[0]]


def test_the_scheme_of_shared_layers_is_recognised_from_each_once():
    torch.manual_seed(0)
    assert str(pk.from_torch(Recurrent(64, steps=9))) == (
        "9 layers of 64 units, tanh, tied, torch_linear_default, head linear (4 outputs)"
    )
    chain = pk.from_torch(Looped(64), init="he_normal")
    assert chain.tied and chain.tied_layers == ("1.linear", "2.linear1", "2.linear2") and chain.depth == 4


def test_it_fills_a_module_with_the_weights_of_a_tied_chain():
    module = Recurrent(32)
    chain = pk.init_torch_(module, "orthogonal", seed=4)
    np.testing.assert_array_equal(
        module.linear.weight.detach().numpy(), pk.weights(chain, layer=5, seed=4, dtype="float32")
    )


class Twice(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.shared, self.others = nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])
        self.bare = nn.Linear(8, 8, bias=False)
        self.bare.weight = self.shared.weight
        self.kind = kind

    def forward(self, x):
        if self.kind == "apart":
            return self.shared(torch.tanh(self.others[0](torch.relu(self.shared(x)))))
        if self.kind == "some":
            for other in self.others:
                x = torch.tanh(other(torch.relu(self.shared(x))))
            return x
        return torch.tanh(self.bare(torch.tanh(self.shared(x))))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("apart", "shared .* is used again; tied layers of a chain are those of a pattern"),
        ("some", "shared .* is used again"),
        ("bias", "share a weight and not the bias"),
    ],
)
def test_other_sharing_is_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        pk.from_torch(Twice(kind), init="he_normal")


@pytest.mark.parametrize("kind", ["RNNCell", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_unrolled(kind, bias):
    """Fifty steps of nn.RNNCell with inputs: every state's gradient, and the sums over uses."""
    torch.manual_seed(5)
    steps, batch = 50, 3
    module = getattr(nn, kind)(6, 17, bias=bias, nonlinearity="tanh").double()
    chain = pk.from_torch(module, weights=True).replace(depth=steps)
    x = torch.randn(steps, batch, 6, dtype=torch.float64)
    state = torch.randn(batch, 17, dtype=torch.float64, requires_grad=True)
    if kind == "RNNCell":
        h = state
        for one in x:
            h = module(one, h)
    else:
        h = module(x, state[None])[1][0]
    cotangent = torch.randn_like(h)
    (h * cotangent).sum().backward()
    p = pk.propagate(chain, x=state, drive=x, cotangent=cotangent, batch_first=True, engine="dense", dtype="float64")
    found = {name.split("_l0")[0]: part.grad.norm().item() for name, part in module.named_parameters()}
    totals = dict(zip(("weight_hh", "weight_ih"), 10 ** p.log10_grad_weight_total[0], strict=True))
    for name, total in totals.items():
        assert total == pytest.approx(found[name], rel=EXACT)
    if bias:
        assert 10 ** p.log10_grad_bias_total[0, 0] == pytest.approx(found["bias_hh"], rel=EXACT)
    assert 10 ** p.log10_grad_activation[0, 0] == pytest.approx(state.grad.norm().item(), rel=EXACT)


class Unrolled(nn.Module):
    """A recurrence as it is often written: a state of zeros, one input a step."""

    def __init__(self):
        super().__init__()
        self.cell = nn.RNNCell(4, 8)

    def forward(self, x):
        state = torch.zeros(x.shape[0], 8)
        for t in range(5):
            state = self.cell(x[:, t], state)
        return state


def test_cells_as_schemes_and_what_is_refused():
    torch.manual_seed(0)
    chain = pk.from_torch(nn.RNNCell(40, 64, nonlinearity="relu"))
    assert chain.tied and chain.layers == ("1.linear", "1.drive") and chain.activations == ("1.relu",)
    assert pk.from_torch(nn.RNNCell(4, 8), init="orthogonal").replace(depth=3).tied_layers == ("1.linear", "1.drive")
    for module, message in (
        (nn.RNN(4, 8, num_layers=2), "several layers or directions"),
        (nn.LSTM(4, 8), "its gates act on the state"),
        (nn.GRUCell(4, 8), "its gates act on the state"),
        (Unrolled(), r"Unrolled calls cell \(RNNCell\) step by step; .* one step of a tied chain"),
        (nn.Sequential(nn.Linear(4, 4), nn.RNN(4, 8)), r"from_torch of the module's 1, then"),
    ):
        with pytest.raises(ValueError, match=message):
            pk.from_torch(module)
