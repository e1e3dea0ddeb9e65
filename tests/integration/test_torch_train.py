# SPDX-License-Identifier: BSD-3-Clause
"""Five steps of torch.optim.SGD on the same weights, inputs and targets: losses, and the gradients of every step."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import pykernel as pk  # noqa: E402
from pykernel import stream  # noqa: E402
from pykernel.engines.heads import drawn_targets  # noqa: E402
from pykernel.engines.reference import input_block  # noqa: E402
from pykernel.lower import lower  # noqa: E402
from pykernel.ops.linear import bias  # noqa: E402

STEPS, BATCH, SEED = 5, 4, 3
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.functional.gelu, "linear": lambda z: z}
LOSSES = {
    "mse": lambda y, t: 0.5 * ((y - t) ** 2).sum(1).mean(),
    "sigmoid": lambda y, t: torch.nn.functional.binary_cross_entropy_with_logits(y, t, reduction="none").sum(1).mean(),
    "softmax": lambda y, t: torch.nn.functional.cross_entropy(y, t),
    "linear": lambda y, t: (y * t).sum(1).mean(),
}
CHAINS = {
    "tanh": pk.Chain(widths=[12, 30, 20, 25], activation="tanh", init="lecun_normal", head=pk.Head("mse", 2)),
    "biases": pk.Chain(depth=4, width=16, activation="gelu", bias_std=0.4, head=pk.Head("softmax", 5)),
    "uniform": pk.Chain(depth=3, width=20, activation="relu", init="he_uniform", head=pk.Head("sigmoid", 3)),
    "orthogonal": pk.Chain(depth=5, width=15, activation="tanh", init="orthogonal", head=pk.Head("linear", 2)),
    "layer norm": pk.Chain(depth=3, width=18, activation="relu", norm="layer", head=pk.Head("mse", 1)),
    "batch norm": pk.Chain(depth=3, width=18, activation="tanh", norm="batch", head=pk.Head("mse", 1)),
    "residual": pk.Chain(depth=4, width=16, activation="tanh", residual=pk.Residual(2, 0.5), head=pk.Head("mse", 1)),
}
RATES = {"standard": 0.05, "ntk": 0.5, "mup": 0.05}


class Twin(torch.nn.Module):
    """A chain of equal layers in plain PyTorch, float64, its weights drawn by address."""

    def __init__(self, chain, replica, smaller):
        super().__init__()
        self.chain, self.program = chain, lower(chain, batch=BATCH, seed=SEED, dtype="float64")
        depth = self.program.depth
        given = [pk.weights(chain, layer=l, replica=replica, seed=SEED) for l in range(1, depth + 2)]
        given[-1] = given[-1] * smaller
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(w)) for w in given])
        has = chain.bias_std > 0
        own = [bias(self.program, replica, l)[:, 0] for l in range(1, depth + 1)] if has else []
        self.biases = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor(b)) for b in own])
        self.x = torch.tensor(input_block(self.program, replica).true().T.copy())
        target = torch.tensor(drawn_targets(self.program, replica, depth + 1).T.copy())
        self.target = target.argmax(1) if chain.head.loss == "softmax" else target

    def normed(self, z):
        axis = {"layer": 1, "batch": 0}.get(self.chain.norm)
        if axis is None:
            return z
        centred = z - z.mean(axis, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(axis, keepdim=True) + 1e-5)

    def forward(self):
        a, residual = self.x, self.chain.residual
        passed = a
        for l, weight in enumerate(self.weights[:-1], 1):
            z = a @ weight.T + (self.biases[l - 1] if len(self.biases) else 0.0)
            a = ACTIVATIONS[self.chain.activation.name](self.normed(z))
            if residual is not None and l % residual.every == 0:
                passed = a = passed + residual.scale * a
        return LOSSES[self.chain.head.loss](a @ self.weights[-1].T, self.target)


def groups(twin, name, rate):
    """Parameters with their own rates: what the docstring of `train` says, written out once more."""
    depth, (*layers, head) = twin.program.depth, list(twin.weights)
    narrow = twin.chain.widths is not None
    for l, w in enumerate(layers, 1):
        fan_out, fan_in = w.shape
        of = {"standard": 1.0, "ntk": 1 / fan_in, "mup": fan_out if narrow and l == 1 else 1.0}[name]
        yield {"params": [w], "lr": rate * of}
    yield {"params": [head], "lr": rate / (1.0 if name == "standard" else head.shape[1])}
    for b in twin.biases:
        yield {"params": [b], "lr": rate * (len(b) if name == "mup" else 1.0)}
    assert depth == len(layers)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("parametrization", RATES)
@pytest.mark.parametrize("name", CHAINS)
def test_five_steps_are_those_of_torch(name, parametrization, momentum):
    """Losses to 1e-7 and gradient norms to 1e-9, relative, in float64; three ways to set rates, with momentum."""
    chain, replica, rate = CHAINS[name], 1, RATES[parametrization]
    t = pk.train(
        chain,
        steps=STEPS,
        rate=rate,
        batch=BATCH,
        replicas=replica + 1,
        momentum=momentum,
        parametrization=parametrization,
        seed=SEED,
        engine="dense",
        dtype="float64",
    )
    twin = Twin(chain, replica, chain.layer_widths[-1] ** -0.5 if parametrization == "mup" else 1.0)
    optimiser = torch.optim.SGD(list(groups(twin, parametrization, rate)), lr=rate, momentum=momentum)
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        loss = twin()
        loss.backward()
        assert t.loss[replica, step] == pytest.approx(loss.item(), rel=1e-7, abs=1e-12)
        norms = [np.log10(w.grad.norm().item()) for w in list(twin.weights)[:-1]]
        # 1e-9 relative of a norm, in decades; behind steps the losses' errors have grown into them
        np.testing.assert_allclose(t.log10_grad_weight[replica, step], norms, rtol=0, atol=1e-9 / np.log(10))
        optimiser.step()


def test_clipping_by_norm_acts_as_in_torch():
    """The head is left: clip_grad_norm_ of the layers' weights and biases."""
    chain = CHAINS["biases"].replace(clip=pk.Clip(norm=0.05))
    t = pk.train(chain, steps=STEPS, rate=0.5, batch=BATCH, seed=SEED, engine="dense", dtype="float64")
    twin = Twin(chain, 0, 1.0)
    optimiser = torch.optim.SGD(twin.parameters(), lr=0.5)
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        loss = twin()
        loss.backward()
        assert t.loss[0, step] == pytest.approx(loss.item(), rel=1e-6)  # torch adds 1e-6 to the norm it divides by
        torch.nn.utils.clip_grad_norm_([*list(twin.weights)[:-1], *twin.biases], 0.05)
        optimiser.step()


def test_a_tied_chain_trains_as_in_torch():
    """One weight, used five times: autograd's sum over uses is what the step takes, and its norm the row of totals."""
    chain = pk.Chain(depth=5, width=14, activation="tanh", tied=True, init="lecun_normal", head=pk.Head("mse", 2))
    t = pk.train(chain, steps=STEPS, rate=0.1, batch=BATCH, momentum=0.5, seed=SEED, engine="dense", dtype="float64")
    program = lower(chain, batch=BATCH, seed=SEED, dtype="float64")
    w, head = (torch.tensor(pk.weights(chain, layer=l, seed=SEED), requires_grad=True) for l in (1, 6))
    x, target = torch.tensor(input_block(program, 0).true()), torch.tensor(drawn_targets(program, 0, 6))
    optimiser = torch.optim.SGD([w, head], lr=0.1, momentum=0.5)
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        a = x
        for _ in range(5):
            a = torch.tanh(w @ a)
        loss = 0.5 * ((head @ a - target) ** 2).sum() / BATCH
        loss.backward()
        assert t.loss[0, step] == pytest.approx(loss.item(), rel=1e-7)
        assert t.log10_grad_weight_total[0, step, 0] == pytest.approx(np.log10(w.grad.norm().item()), abs=1e-9)
        optimiser.step()


@pytest.mark.parametrize("width", [1, 6])
def test_a_recurrent_net_with_inputs_trains_as_in_torch(width):
    """Inputs at every step, momentum, and gradients of W, its bias and U clipped together (U has no bias)."""
    uses, m, bound, rate = 4, 2, 0.03, 0.05
    block = [pk.Linear(bias_std=0.3), pk.Drive(m), "tanh"]
    chain = pk.Chain(
        depth=uses, width=width, blocks=block, tied=True, head=pk.Head("linear", 1), clip=pk.Clip(norm=bound)
    )
    drive = [np.random.default_rng(k).normal(size=(m, BATCH)) for k in range(uses)]
    words = dict(momentum=0.9, seed=SEED, engine="dense", dtype="float64", batch=BATCH)
    t = pk.train(chain, steps=STEPS, rate=rate, drive=drive, **words)
    program = lower(chain, batch=BATCH, seed=SEED, dtype="float64")
    w, u, head = (pk.weights(chain, layer=l, seed=SEED) for l in (1, 2, 2 * uses + 1))
    w, u, head, b = (torch.tensor(a, requires_grad=True) for a in (w, u, head, bias(program, 0, 1)))
    x, target = torch.tensor(input_block(program, 0).true()), torch.tensor(drawn_targets(program, 0, 2 * uses + 1))
    optimiser = torch.optim.SGD([w, u, head, b], lr=rate, momentum=0.9)
    for step in range(STEPS + 1):
        optimiser.zero_grad()
        a = x
        for arrived in drive:
            a = torch.tanh(w @ a + b + u @ torch.tensor(arrived))
        loss = (head @ a * target).sum() / BATCH
        loss.backward()
        factor = bound / np.sqrt(sum(p.grad.norm().item() ** 2 for p in (w, u, b)))
        for p in (w, u, b):
            p.grad *= min(1.0, factor)
        assert t.loss[0, step] == pytest.approx(loss.item(), rel=1e-7, abs=1e-9)
        expected = np.log10([p.grad.norm().item() for p in (w, u)])
        np.testing.assert_allclose(t.log10_grad_weight_total[0, step], expected, rtol=0, atol=1e-9)
        optimiser.step()


def test_the_tangent_kernel_is_that_of_torch():
    """Jacobians of every input by autograd, one read-out; biases too."""
    chain = pk.Chain(widths=[6, 11, 9], activation="gelu", bias_std=0.3)
    p = pk.propagate(chain, batch=BATCH, cotangent="common", seed=SEED, engine="dense", dtype="float64")
    program = lower(chain, batch=BATCH, seed=SEED, dtype="float64")
    weights = [torch.tensor(pk.weights(chain, layer=l, seed=SEED), requires_grad=True) for l in (1, 2)]
    biases = [torch.tensor(bias(program, 0, l), requires_grad=True) for l in (1, 2)]
    read_out = torch.tensor(stream.tall(SEED, stream.COTANGENT, 2, 0, 9)[:, 0].astype(float) / 3)
    a = torch.tensor(input_block(program, 0).true())
    for w, b in zip(weights, biases):
        a = torch.nn.functional.gelu(w @ a + b)
    rows = [
        torch.cat([g.ravel() for g in torch.autograd.grad(one, [*weights, *biases], retain_graph=True)])
        for one in read_out @ a
    ]
    jacobian = torch.stack(rows).numpy()
    np.testing.assert_allclose(p.tangent_kernel[0], jacobian @ jacobian.T, rtol=1e-9)
