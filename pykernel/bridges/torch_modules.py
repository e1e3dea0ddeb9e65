# SPDX-License-Identifier: BSD-3-Clause
"""PyTorch modules as chains, and chains' weights in PyTorch modules."""

from __future__ import annotations

import math

import numpy as np

from pykernel import checks, inits
from pykernel.bridges import recognise, torch_cells, torch_conv
from pykernel.bridges.torch_graph import read
from pykernel.bridges.torch_kinds import array, require_numbers
from pykernel.chain import Chain
from pykernel.distributions import SCALED, unit_std
from pykernel.init import Given


def from_torch(module, *, weights: bool = False, init=None, loss: str = "linear", activations=None) -> Chain:
    """The chain that a PyTorch module is, to diagnose the network you have.

    Args:
        module: an `nn.Sequential`, nested if you like, or a module whose `forward` torch.fx can trace, of Linear
            layers, Conv1d and Conv2d, pools, activation functions, norms, dropout, gates (SwiGLU and the like from two
            Linear layers or halves of one, `nn.GLU`), self-attention, numbers that multiply, and sums a x + b f(x), the
            skip with layers of its own or without. Attention is `nn.MultiheadAttention`, `nn.TransformerEncoder` and
            its layers, `scaled_dot_product_attention` or written out, of separate layers or a fused one in thirds, keys
            and values shared by groups of heads or not, causal or not. Equal layers become a chain of keywords, others
            blocks, with `depth` where they repeat, tied where repetitions use the same layers. A last Linear becomes
            the chain's Head, over all positions or, behind `x[:, -1]`, `x[:, 0]` or `x.mean(1)`, over these. An
            `nn.RNNCell`, or `nn.RNN` of one layer, by itself becomes one step of a tied chain: `.replace(depth=T)`
            unrolls it T times.
        weights: True to read the very weights and biases, so that `propagate` measures this network; False for the
            scheme that they are a fresh draw of, found by likelihood, so that `propagate` measures its ensemble. Steps
            of blocks may have schemes of their own.
        init: the scheme, where you know it better; the weights are then not looked at, and may be on the meta device.
        loss: of the Head: "linear" (the logits' random read-out, or the `cotangent` you give), "mse", "sigmoid" or
            "softmax".
        activations: dict of your own module classes -> pykernel.Activation or a name.

    Returns:
        Chain, whose `modules` are the names that the module has for its layers; tables and figures show them.
            `pk.propagate(chain, x=batch, batch_first=True)` takes the module's own inputs, (batch, units); a
            `cotangent` likewise. Inputs with positions, (batch, positions, units) in PyTorch, are (batch, units,
            positions) here: `x=batch.transpose(1, 2), positions=batch.shape[1]`. Images are as they are in PyTorch,
            (batch, units, height, width): `x=batch, positions=batch.shape[2:]`.

    Raises:
        ValueError: the module is no chain, or its weights no fresh draw of a known scheme: which layer, and why.
        TypeError: it is no module.

    Notes:
        x is what enters the first block: embeddings are looked up, and tables of positions (learned or sinusoidal)
        added, before; a module that does so is refused: read the module behind it.
        A norm's weight and bias are read as they stand, whatever the scheme; batch norm must have its batch's
        statistics (training mode). Dropout in training mode is a step with masks of this package's own; in eval mode it
        is none. Convolutions pad as a kernel needs to keep its positions, or not at all, with zeros or circularly. An
        adaptive pool to several positions whose output is flattened (VGG's) is read as none, which it is for images of
        the size that the network was made for. Dropout on attention weights, masks other than the causal one, rotary
        positions, transposed convolution, concatenation, norms of groups, weights shared other than by
        repetitions of a pattern, and sums inside a branch of another sum are refused by name.
        Clipping, optimisers and the gradients of a norm's own parameters are left out; so are a head's own gradient,
        and its bias in a drawn scheme.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> layers = [torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10)]  # doctest: +SKIP
        >>> net = torch.nn.Sequential(*layers)  # doctest: +SKIP
        >>> str(pk.from_torch(net))  # doctest: +SKIP
        '1 layers of 64 units, tanh, torch_linear_default, head linear (10 outputs)'
    """
    if not isinstance(weights, bool):
        raise TypeError(f"weights must be True or False, got {weights!r}")
    if weights and init is not None:
        raise ValueError("give either weights=True, to read the module's own weights, or init, to name their scheme")
    if torch_cells.is_cell(module):
        return torch_cells.step(module, weights=weights, init=init)
    torch_cells.require_none_inside(module)
    network = read(module, activations)
    return _chain(network, weights, init, loss).named(_names(module, network.layers))


def _chain(network, weights, init, loss) -> Chain:
    if init is not None:
        return network.chain(init, loss=loss)
    arrays = [_parameters(source) for source in network.layers]
    matrices, biases = [w for w, _ in arrays], [b for _, b in arrays]
    head = None if network.head is None else _parameters(network.head)
    if weights:
        given = Given(matrices, biases, name="the module's weights")
        last = None if head is None else Given(head[:1], head[1:], name="the module's head")
        return network.chain(given, head_init=last, loss=loss)
    own = sorted(i for group in network.groups for i in group)  # tied layers once
    schemes = recognise.schemes(
        [matrices[i] for i in own],
        [biases[i] for i in own],
        [torch_conv.fans(network.layers[i]) for i in own],
        [[own.index(i) for i in group] for group in network.groups],
    )
    main = max(
        schemes, key=lambda s: sum(len(group) for own, group in zip(schemes, network.groups, strict=True) if own == s)
    )
    found, gain, bias_std = main
    return network.chain(
        found,
        words=[(None if s[0] == found else s[0], s[1] / gain, None if s[2] == bias_std else s[2]) for s in schemes],
        head_init=None if head is None else _head_scheme(head[0], found, gain),
        loss=loss,
        gain=gain,
        bias_std=bias_std,
    )


def _names(module, sources) -> list[str]:
    """What the module calls its layers: the path of each weight, and which rows of it where others have the rest."""
    paths = {id(parameter): path for path, parameter in module.named_parameters()}
    names = []
    for source in sources:
        path = paths.get(id(source.weight), source.where)
        name = path.removesuffix("weight").rstrip("._") or type(module).__name__
        first, end = source.rows
        names.append(name if end - first == len(source.weight) else f"{name}[{first}:{end}]")
    return names


def init_torch_(
    module,
    scheme,
    *,
    seed: int = 0,
    replica: int = 0,
    gain: float = 1.0,
    bias_std: float = 0.0,
    positions=(),
    activations=None,
) -> Chain:
    """Fill a PyTorch module with the weights that `propagate` uses: a draw of a scheme at a seed and replica, in place.

    Args:
        module: as `from_torch` reads it; weights of any real dtype and device.
        scheme: a name or a pykernel.Init; or a Chain or an entry of `pk.recommend(...)`, whose init, gain and bias_std
            are taken, and whose other parts the module must have.
        seed, replica: the address of the draw.
        gain, bias_std: as in Chain. Biases are zero without.
        positions: of one input, as in `propagate`, where the module has convolutions.
        activations: as in `from_torch`.

    Returns:
        The Chain: layer l of a float32 module has the bits of `pk.weights` at these words in float32. A last Linear
            without activation is the head, layer L + 1: of the same scheme where its entries are independent, else
            lecun_normal; its bias is zero.

    Raises:
        ValueError, TypeError: as `from_torch`; weights on the meta device, or of whole or complex numbers; a
            recommendation of something that the module is not.

    Examples:
        >>> import torch  # doctest: +SKIP
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh())  # doctest: +SKIP
        >>> str(pk.init_torch_(net, "orthogonal", seed=1))  # doctest: +SKIP
        '1 layers of 64 units, tanh, orthogonal'
        >>> pk.init_torch_(net, pk.recommend(pk.from_torch(net)).best).gain  # doctest: +SKIP
        1.0
    """
    from pykernel.lower import lower
    from pykernel.ops.linear import bias as bias_of
    from pykernel.simulate import weights

    network = read(module, activations)
    wanted = getattr(scheme, "chain", scheme)
    if isinstance(wanted, Chain):
        chain = _as_wanted(network, wanted, gain, bias_std, positions)
    elif scheme is None:
        raise TypeError(
            "scheme must be a name, an Init, a Chain or a recommendation, got None: pk.recommend found no healthy "
            "candidate"
        )
    else:
        chain = network.chain(
            scheme, gain=checks.finite("gain", gain), bias_std=checks.not_negative("bias_std", bias_std)
        )
    program = lower(chain, seed=seed, positions=positions)
    sources = [*network.layers, *([] if network.head is None else [network.head])]
    for source in sources:
        for parameter in (source.weight, source.bias):
            if parameter is not None:
                require_numbers(parameter, source.where)
    for i, source in enumerate(sources, 1):
        drawn = weights(chain, layer=i, replica=replica, seed=seed, dtype="float32", positions=positions)
        _fill(source.weight, source.rows, drawn)
        if source.bias is not None:
            has = i <= program.depth and program.layers.bias_draw[i - 1]
            _fill(source.bias, source.rows, bias_of(program, replica, i)[:, 0] if has else np.zeros(source.sizes[0]))
    return chain.named(_names(module, network.layers))


def _as_wanted(network, wanted, gain, bias_std, positions):
    """The network as a chain with the init, gain and biases of another one, which must have its other parts."""
    if gain != 1 or bias_std != 0:
        raise ValueError("the recommended chain brings its own gain and bias_std: give it alone")
    if wanted.blocks is not None or network.keywords is None:
        own = network.chain(wanted.init if wanted.blocks is None else "he_normal")
        if _shape(own, positions) != _shape(wanted, positions):
            raise ValueError(
                f"the module has {own}; the recommended chain has {wanted}: weights alone cannot make up for it"
            )
        return wanted.replace(head=own.head)
    own = network.chain(wanted.init, gain=wanted.gain, bias_std=wanted.bias_std)
    if not np.array_equal(own.layer_widths, wanted.layer_widths):
        raise ValueError(f"the module has {own}; the recommended chain has {wanted}")
    for part in ("activation", "norm", "order", "residual", "tied"):
        mine, theirs = getattr(own, part), getattr(wanted, part)
        if mine != theirs:
            raise ValueError(
                f"the recommended chain has {part} {theirs}, the module {mine}: weights alone cannot make up for it; "
                "change the module "
                "first, or choose another entry of pk.recommend(...)"
            )
    return own


def _shape(chain, positions):
    """All of a chain but its draws."""
    from pykernel.lower import lower

    p = lower(chain.replace(init="he_normal", head=None), positions=positions)
    rows = [(p.activations[row], p.norms[norm]) for row, norm in zip(p.steps.row, p.steps.norm, strict=True)]
    arrays = (
        p.nodes,
        p.layers.units,
        p.layers.columns,
        p.layers.groups,
        p.layers.weight,
        p.joins.skip,
        p.joins.branch,
        p.factors,
        p.masks,
    )
    ops = [stretch.ops for stretch in p.stretches for _ in range(stretch.count)]
    windows = [p.windows[window] for window in p.window_steps]
    affines = [[part.tolist() for part in p.affines[row]] for row in p.affine_steps]
    return rows, [p.norms[norm] for norm in p.norm_steps], affines, windows, [a.tolist() for a in arrays], ops


def _fill(parameter, rows, array):
    import torch

    with torch.no_grad():
        parameter[slice(*rows)].copy_(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)))


def _parameters(source):
    """The weight and bias (or None) of a layer, float64."""
    rows = slice(*source.rows)
    return array(source.weight, source.where)[rows], None if source.bias is None else array(source.bias, source.where)[
        rows
    ]


def _head_scheme(weight, found, gain):
    """The scheme of a head's weight: the layers' own where it fits, else what the weight shows by itself, else its own
    variance."""
    fans = (weight.shape[1], weight.shape[0])
    if found.distribution in SCALED and gain == 1:
        variance = (found.scale(*fans) * unit_std(found.distribution)) ** 2
        if abs(np.square(weight).mean() / variance - 1) < recognise.SIGMAS * math.sqrt(2 / weight.size):
            return found
    try:
        own = recognise.scheme([weight], [None])[0]
    except ValueError:
        own = found
    return (
        own
        if own.distribution in SCALED and own is not found
        else inits.Normal(float(np.sqrt(np.square(weight).mean())))
    )
