# SPDX-License-Identifier: BSD-3-Clause
"""Convolutional modules of PyTorch as chains: gradients of the very network, schemes of fresh ones, and what is
refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pykernel as pk

EXACT = 1e-6  # decades in float64: deep networks with batch norm lose digits
BATCH = 3


def conv3(entering, units, stride=1):
    return nn.Conv2d(entering, units, 3, stride, 1, bias=False)


class Basic(nn.Module):
    """ResNet's block of two, with a projection where shapes change."""

    expansion = 1

    def __init__(self, entering, units, stride=1):
        super().__init__()
        self.conv1, self.bn1 = conv3(entering, units, stride), nn.BatchNorm2d(units)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = conv3(units, units), nn.BatchNorm2d(units)
        self.downsample = None
        if stride != 1 or entering != units:
            self.downsample = nn.Sequential(nn.Conv2d(entering, units, 1, stride, bias=False), nn.BatchNorm2d(units))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, entering, units, stride=1):
        super().__init__()
        wide = 4 * units
        self.conv1, self.bn1 = nn.Conv2d(entering, units, 1, bias=False), nn.BatchNorm2d(units)
        self.conv2, self.bn2 = conv3(units, units, stride), nn.BatchNorm2d(units)
        self.conv3, self.bn3 = nn.Conv2d(units, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.downsample = None
        if stride != 1 or entering != wide:
            self.downsample = nn.Sequential(nn.Conv2d(entering, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, block, counts, width=4, classes=7):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        entering, stages = width, []
        for stage, count in enumerate(counts):
            units = width * 2**stage
            blocks = []
            for place in range(count):
                blocks.append(block(entering, units, 2 if stage and not place else 1))
                entering = block.expansion * units
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(entering, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.stages(x))
        return self.fc(torch.flatten(x, 1))


class VGG(nn.Module):
    def __init__(self, norm=False, width=6, left=(2, 2)):
        super().__init__()
        parts = []
        for entering, units in ((3, width), (width, 2 * width)):
            for n in (entering, units):
                parts += [nn.Conv2d(n, units, kernel_size=3, padding=1)]
                parts += [nn.BatchNorm2d(units)] if norm else []
                parts += [nn.ReLU(inplace=True)]
            parts += [nn.MaxPool2d(2, 2)]
        self.features, self.avgpool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d(left)
        hidden = nn.Linear(2 * width * left[0] * left[1], 20)
        self.classifier = nn.Sequential(hidden, nn.ReLU(True), nn.Linear(20, 20), nn.ReLU(True), nn.Linear(20, 5))

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


def discriminator(width=4):
    """DCGAN's, of 32 x 32."""
    parts = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for i in (1, 2):
        entering, units = width * 2 ** (i - 1), width * 2**i
        parts += [nn.Conv2d(entering, units, 4, 2, 1, bias=False), nn.BatchNorm2d(units), nn.LeakyReLU(0.2, True)]
    net = nn.Sequential(*parts, nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False), nn.Sigmoid())
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, 0.0, 0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
    return net


class LeNet(nn.Module):
    """Everything as functions."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5, bias=False)
        self.fc1, self.fc2 = nn.Linear(16 * 25, 30), nn.Linear(30, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), kernel_size=2)
        return self.fc2(torch.tanh(self.fc1(x.reshape(x.shape[0], 16 * 5 * 5))))


class Separable(nn.Module):
    """Depthwise and pointwise convolutions, circular, around a plain skip, and a mean of positions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding="same")
        self.depthwise = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8, padding_mode="circular")
        self.pointwise, self.fc = nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = F.gelu(self.stem(x))
        x = x + 0.5 * self.pointwise(F.gelu(self.depthwise(x)))
        return self.fc(x.mean((2, 3)))


def dilated():
    """Kernels with gaps, padded so that positions stay, and not at all."""
    parts = [nn.Conv2d(3, 8, 3, padding=2, dilation=2), nn.BatchNorm2d(8), nn.ReLU()]
    parts += [nn.Conv2d(8, 8, 3, padding="same", dilation=(1, 3), padding_mode="circular"), nn.Tanh()]
    parts += [nn.Conv2d(8, 6, 3, stride=2, dilation=3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(6, 3))


def sequence():
    """One axis of positions."""
    parts = [nn.Conv1d(5, 8, 3, padding=1), nn.BatchNorm1d(8), nn.SiLU(), nn.AvgPool1d(2)]
    parts += [nn.Conv1d(8, 8, 3, stride=2, padding=1, groups=2), nn.ELU(), nn.MaxPool1d(3, stride=1, padding=1)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(8 * 4, 6), nn.ReLU(), nn.Linear(6, 2))


MODULES = {
    "basic blocks": (lambda: ResNet(Basic, (2, 2, 1)), (3, 32, 32)),
    "bottlenecks": (lambda: ResNet(Bottleneck, (2, 2)), (3, 32, 32)),
    "vgg": (VGG, (3, 8, 8)),
    "vgg with norms": (lambda: VGG(norm=True), (3, 8, 8)),
    "discriminator": (discriminator, (3, 32, 32)),
    "functions": (LeNet, (1, 32, 32)),
    "separable": (Separable, (2, 6, 9)),
    "sequence": (sequence, (5, 16)),
    "dilated": (dilated, (3, 11, 12)),
}


def check(module, shape, backend="cpp"):
    """The very network: the gradient norms of autograd, layer by layer."""
    module = module.double().train()
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(BATCH, *shape))).requires_grad_()
    y = module(x)
    cotangent = rng.normal(size=y.shape)
    (y * torch.from_numpy(cotangent)).sum().backward()
    chain = pk.from_torch(module, weights=True)
    p = pk.propagate(
        chain,
        x=x.detach().numpy(),
        cotangent=cotangent,
        batch_first=True,
        positions=shape[1:],
        dtype="float64",
        engine="dense",
        backend=backend,
    )
    gradients = {name.removesuffix(".weight"): part.grad for name, part in module.named_parameters()}
    expected = [gradients[name].norm().log10().item() for name in chain.modules]
    np.testing.assert_allclose(p.log10_grad_weight[0], expected, atol=EXACT)
    assert abs(p.log10_grad_activation[0, 0] - x.grad.norm().log10().item()) < EXACT
    return chain


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("name", MODULES)
def test_gradients_of_the_very_network_are_those_of_autograd(name, backend):
    torch.manual_seed(1)
    make, shape = MODULES[name]
    check(make(), shape, backend)


def test_a_trained_norm_and_a_zero_one_are_read():
    torch.manual_seed(2)
    module = ResNet(Basic, (2, 1))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    check(module, (3, 32, 32))
    nn.init.zeros_(module.stages[1][0].bn2.weight)
    chain = pk.from_torch(module, weights=True)
    p = pk.propagate(chain, batch=2, positions=(32, 32))
    dead = [name for name, row in zip(chain.modules, p.log10_grad_weight[0], strict=True) if np.isneginf(row)]
    assert dead == ["stages.1.0.conv1", "stages.1.0.conv2"]


@pytest.mark.parametrize(
    ("block", "layers", "counts"), [(Basic, 18, (2, 2, 2, 2)), (Bottleneck, 50, (3, 4, 6, 3))], ids=["18", "50"]
)
def test_a_fresh_resnet_is_the_preset(block, layers, counts):
    """Read from its weights alone: the same layers in the same order, drawn as wide, so the same gradients."""
    torch.manual_seed(3)
    chain = pk.from_torch(ResNet(block, counts, width=8, classes=10)).replace(head=None)
    preset = pk.blocks.resnet(layers, width=8).replace(head=None)
    words = {"positions": (64, 64), "batch": 2, "seed": 4, "dtype": "float64"}
    for name in (1, len(chain.layers)):
        pair = [pk.weights(c, layer=name, positions=(64, 64), seed=4) for c in (chain, preset)]
        np.testing.assert_array_equal(*pair)
    found, expected = (pk.propagate(c, **words).log10_grad_weight for c in (chain, preset))
    np.testing.assert_allclose(found, expected, atol=EXACT)


def fresh(fill, groups=1, kernel=3):
    torch.manual_seed(5)
    parts = []
    for entering, units in ((8, 32), (32, 32), (32, 64)):
        parts += [nn.Conv2d(entering, units, kernel, padding=kernel // 2, groups=groups), nn.ReLU()]
    net = nn.Sequential(*parts)
    for part in net:
        if isinstance(part, nn.Conv2d) and fill is not None:
            fill(part.weight)
            nn.init.zeros_(part.bias)
    return net


def delta_(weight):
    nn.init.zeros_(weight)
    middle = torch.empty(weight.shape[:2])
    nn.init.orthogonal_(middle)
    with torch.no_grad():
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] = middle


@pytest.mark.parametrize(
    ("fill", "groups", "name"),
    [
        (None, 1, "torch_linear_default"),
        (None, 4, "torch_linear_default"),
        (nn.init.kaiming_normal_, 1, "he_normal"),
        (nn.init.kaiming_normal_, 8, "he_normal"),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out"), 1, "variance_scaling(2, fan_out, normal)"),
        (nn.init.xavier_uniform_, 1, "glorot_uniform"),
        (lambda w: nn.init.normal_(w, 0, 0.02), 1, "normal(0.02)"),
        (nn.init.orthogonal_, 1, "orthogonal"),
        (delta_, 1, "delta_orthogonal"),
    ],
)
def test_the_scheme_of_a_fresh_module(fill, groups, name):
    assert pk.from_torch(fresh(fill, groups)).init.name == name


def test_a_module_filled_has_the_weights_of_the_chain():
    module = fresh(None)
    chain = pk.init_torch_(module, "he_normal", seed=6, positions=(9, 9))
    for layer, place in enumerate((0, 2, 4), 1):
        drawn = pk.weights(chain, layer=layer, seed=6, positions=(9, 9), dtype="float32")
        np.testing.assert_array_equal(module[place].weight.detach().numpy(), drawn)
    with pytest.raises(ValueError, match="needs positions"):
        pk.init_torch_(module, "he_normal")


def test_layers_used_again_are_tied():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            for _ in range(3):
                x = torch.tanh(self.conv(x))
            return x

    torch.manual_seed(7)
    module = Loop().double()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    y = module(x)
    y.sum().backward()
    chain = pk.from_torch(module, weights=True)
    assert chain.tied
    words = {"x": x.numpy(), "cotangent": np.ones(y.shape), "batch_first": True, "positions": (5, 5)}
    p = pk.propagate(chain, **words, dtype="float64")
    total = module.conv.weight.grad.norm().log10().item()
    assert p.log10_grad_weight_total[0, 0] == pytest.approx(total, abs=EXACT)


class Given(nn.Module):
    """A convolution of 3 channels to 8, and what is done with it."""

    def __init__(self, act):
        super().__init__()
        self.act, self.conv, self.linear = act, nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.own = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.act(self, self.conv(x))


REFUSED = [
    ([nn.Conv2d(3, 8, 3, padding=1, dilation=2)], r"has padding \(1, 1\) and a kernel of .* here \(2, 2\), or nothing"),
    ([nn.Conv2d(3, 8, 5, padding=1)], r"has padding \(1, 1\) and a kernel of \(5, 5\); .* here \(2, 2\), or nothing"),
    ([nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect")], "has padding_mode='reflect'"),
    ([nn.Conv2d(3, 8, 4, padding="same")], "more on one side"),
    ([nn.ConvTranspose2d(3, 8, 3)], "a chain has no transposed convolution"),
    ([nn.Conv2d(3, 8, 3), nn.MaxPool2d(2, ceil_mode=True)], r"layer 1 \(MaxPool2d\) has ceil_mode=True"),
    ([nn.Conv2d(3, 8, 3), nn.AvgPool2d(3, padding=1, count_include_pad=False)], "has count_include_pad=False"),
    ([nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(7), nn.ReLU()], "pools to 7 positions"),
    ([nn.Conv2d(3, 8, 3), nn.Linear(8, 3)], r"layer 1 \(Linear\) acts on the last axis"),
    ([nn.Conv2d(3, 8, 3), nn.LayerNorm(8)], r"layer 1 \(LayerNorm\) acts on the last axis"),
    ([nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)], "is not known: a chain's norms are over"),
    ([nn.Conv2d(3, 8, 3), nn.Flatten(2)], "lays axes together"),
    ([nn.Linear(8, 8), nn.Conv1d(8, 8, 3)], r"layer 1 \(Conv1d\) is behind layer 0 \(Linear\)"),
    ([nn.Conv2d(3, 8, 3), nn.Conv1d(8, 8, 3)], "looks at 1 axes of positions"),
    ([nn.Conv2d(3, 8, 3), nn.Conv2d(4, 8, 3)], "takes 4 channels, but layer 0 .* gives 8"),
    ([nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()], "in eval mode"),
    ([nn.Conv2d(3, 8, 3), nn.Dropout2d(0.5)], "drops by another rule"),
    ([nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)], "flattens before any convolution"),
    (lambda m, x: x * m.own, "mul of Given uses own"),
    (lambda m, x: m.linear(x.permute(0, 2, 3, 1)), "calls permute"),
    (lambda m, x: m.linear(x.mean(1)), r"mean of Given is over axes \(1,\)"),
    (lambda m, x: x - x.mean(-1, keepdim=True), r"mean of Given is over axes \(-1,\)"),
    (lambda m, x: x[:, :, ::2], "takes something apart"),
    (lambda m, x: torch.cat([x, x], 1), "cat of Given"),
    (lambda m, x: F.pad(x, (1, 1, 1, 1)), "calls pad"),
]


@pytest.mark.parametrize(("parts", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_chain_is_refused_by_layer_and_reason(parts, message):
    module = nn.Sequential(*parts) if isinstance(parts, list) else Given(parts)
    with pytest.raises(ValueError, match=message):
        pk.from_torch(module, weights=True)


def test_the_identity_at_the_middle_is_no_scheme():
    with pytest.raises(ValueError, match="identity at their middle"):
        pk.from_torch(fresh(nn.init.dirac_))
