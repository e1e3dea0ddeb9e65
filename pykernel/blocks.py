# SPDX-License-Identifier: BSD-3-Clause
"""Networks that people train, as chains to read and to change: what each is made of, how it begins, and where that is
written.

Each function returns a plain `Chain`: `print(repr(chain))` is the call that makes it, `chain.replace(...)` changes it.
x is what enters the first block: of transformers embeddings with tables of positions added, of convolutions images.

Examples:
    >>> import pykernel as pk
    >>> chain = pk.blocks.gpt2("small", layers=2)
    >>> chain.layers[:4]
    ('1.query', '1.key', '1.value', '1.output')
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pykernel import checks
from pykernel.chain import Chain
from pykernel.conv import Conv, Flatten, Pool
from pykernel.init import Init
from pykernel.inits import VarianceScaling
from pykernel.layers import MAX_WIDTH, Attention, Block, Gated, Linear, Norm
from pykernel.parts import MAX_DEPTH, Head

# layers, width, heads (of keys and values, too), units of the feed-forward
Sizes = dict[str, tuple[int, ...]]
GPT2: Sizes = {
    "small": (12, 768, 12, 3072),
    "medium": (24, 1024, 16, 4096),
    "large": (36, 1280, 20, 5120),
    "xl": (48, 1600, 25, 6400),
}
LLAMA: Sizes = {"7b": (32, 4096, 32, 32, 11008), "8b": (32, 4096, 32, 8, 14336), "70b": (80, 8192, 64, 8, 28672)}
BERT: Sizes = {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}
VIT: Sizes = {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096), "huge": (32, 1280, 16, 5120)}
# blocks of each stage, and convolutions a block
RESNET = {
    18: ((2, 2, 2, 2), 2),
    34: ((3, 4, 6, 3), 2),
    50: ((3, 4, 6, 3), 3),
    101: ((3, 4, 23, 3), 3),
    152: ((3, 8, 36, 3), 3),
}
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions of each stage
HE_FAN_OUT = VarianceScaling(2.0, "fan_out", "normal")


def gpt2(
    size: str = "small",
    *,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    hidden: int | None = None,
    vocabulary: int | None = 50257,
) -> Chain:
    """GPT-2: pre-norm, causal attention, GELU; weights N(0, 0.02^2), those that end a branch by 1/sqrt(2 layers) less.

    Args:
        size: "small", "medium", "large" or "xl": where the sizes come from that are not given.
        layers, width, heads: attention blocks, units, heads of an attention. Where width is given and heads are not, a
            head keeps the units that it has at this size (64), which must divide width.
        hidden: units of the feed-forward; 4 width by default where width is given.
        vocabulary: outputs of the head, a weight of its own of N(0, 0.02^2) (GPT-2's is its embedding); None for none.

    Returns:
        Chain: `layers` times an attention and a feed-forward, then a layer norm and a softmax head.

    Raises:
        ValueError, TypeError: an unknown size, numbers that are no positive ints, heads that do not divide width, a
            width that the units of a head do not divide.

    Notes:
        Radford et al. 2019, section 2.3, for the factor 1/sqrt(N), N residual layers; github.com/openai/gpt-2,
        src/model.py, for pattern and 0.02; github.com/karpathy/nanoGPT, model.py, which applies 0.02/sqrt(2 layers) to
        both output layers. The tanh form of GELU, no dropout.

    Examples:
        >>> chain = gpt2(layers=2, width=64, heads=4, vocabulary=100)
        >>> chain.depth, chain.layers[3], chain.blocks[0].steps[1].output.name
        (2, '1.output', 'normal(0.01)')
    """
    layers, width, heads, hidden = _sizes("gpt2", GPT2, size, layers=layers, width=width, heads=heads, hidden=hidden)
    end = f"normal({0.02 / (2 * layers) ** 0.5:.6g})"
    attention = Block(Norm("layer"), Attention(heads, causal=True, output=end), skip=1.0)
    feed_forward = Block(Norm("layer"), Linear(hidden), "gelu_tanh", Linear(width, init=end), skip=1.0)
    return Chain(
        depth=layers,
        width=width,
        init="normal(0.02)",
        blocks=(attention, feed_forward),
        last=(Norm("layer"),),
        head=_head(vocabulary, "normal(0.02)"),
    )


def llama(
    size: str = "7b",
    *,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    hidden: int | None = None,
    vocabulary: int | None = 32000,
) -> Chain:
    """Llama: pre-norm by RMS, causal attention with shared keys and values, SwiGLU, no biases.

    Args:
        size: "7b" (the first Llama's), "8b" or "70b" (Llama 3's): where the sizes come from that are not given.
        layers, width, heads, kv_heads: attention blocks, units, heads of queries, heads of keys and values. Heads
            follow a given width as those of `gpt2` do (128 units each); heads of keys and values are by default as many
            as heads where heads are given, else the size's share of them where that is a whole number.
        hidden: units of the gate; 8/3 width by default where width is given, rounded up to a multiple of 32.
        vocabulary: outputs of the head, of N(0, 1/width); None for none.

    Returns:
        Chain: `layers` times an attention and a gated feed-forward, then an RMS norm and a softmax head.

    Raises:
        ValueError, TypeError: as `gpt2`; kv_heads that do not divide heads.

    Notes:
        Touvron et al. 2023 (arXiv 2302.13971, section 2.2) for the pattern; sizes of Llama 3, arXiv 2407.21783. The
        papers do not say how weights begin: here N(0, 0.02^2), those that end a branch 0.02/sqrt(2 layers), as public
        training code (torchtitan, models/llama3, depth_init=False) has them. eps 1e-5. Rotary positions are left out:
        they turn queries and keys, and leave the variance of the scores as it is where weights are random.

    Examples:
        >>> chain = llama(layers=2, width=64, heads=4, kv_heads=2, vocabulary=None)
        >>> print(chain.blocks[1])
        a + (rms norm, silu gate 192, linear 64)
    """
    layers, width, heads, kv_heads, hidden = _sizes(
        "llama", LLAMA, size, layers=layers, width=width, heads=heads, kv_heads=kv_heads, hidden=hidden
    )
    end = f"normal({0.02 / (2 * layers) ** 0.5:.6g})"
    shared = None if kv_heads == heads else kv_heads
    attention = Block(Norm("rms"), Attention(heads, kv_heads=shared, causal=True, output=end), skip=1.0)
    feed_forward = Block(Norm("rms"), Gated(hidden, "silu"), Linear(width, init=end), skip=1.0)
    return Chain(
        depth=layers,
        width=width,
        init="normal(0.02)",
        blocks=(attention, feed_forward),
        last=(Norm("rms"),),
        head=_head(vocabulary, "lecun_normal"),
    )


def bert(
    size: str = "base",
    *,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    hidden: int | None = None,
    vocabulary: int | None = 30522,
) -> Chain:
    """BERT: post-norm, every position sees all, GELU; weights of a normal cut at two standard deviations of 0.02.

    Args:
        size: "base" or "large": where the sizes come from that are not given.
        layers, width, heads, hidden: as `gpt2`.
        vocabulary: outputs of the head behind one more layer, GELU and norm; None for neither.

    Returns:
        Chain: a norm (of the embeddings' sum), `layers` times an attention and a feed-forward, each with a norm behind
        the sum, and the head of masked words.

    Raises:
        ValueError, TypeError: as `gpt2`.

    Notes:
        Devlin et al. 2019 (arXiv 1810.04805); github.com/google-research/bert, modeling.py: initializer_range 0.02 of a
        truncated normal, whose own standard deviation is 0.0176; eps 1e-12. No dropout.

    Examples:
        >>> print(bert(layers=2, width=64, heads=4, vocabulary=None).blocks[0])
        a + (attention of 4 heads), then layer norm
    """
    layers, width, heads, hidden = _sizes("bert", BERT, size, layers=layers, width=width, heads=heads, hidden=hidden)
    init = "truncated_normal(0.02)"
    attention = Block(Attention(heads), skip=1.0, after=Norm("layer"))
    feed_forward = Block(Linear(hidden), "gelu", Linear(width), skip=1.0, after=Norm("layer"))
    return Chain(
        depth=layers,
        width=width,
        init=init,
        norm_eps=1e-12,
        first=(Norm("layer"),),
        blocks=(attention, feed_forward),
        last=() if vocabulary is None else (Block(Linear(), "gelu", Norm("layer")),),
        head=_head(vocabulary, init),
    )


def vit(
    size: str = "base",
    *,
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    hidden: int | None = None,
    classes: int | None = 1000,
) -> Chain:
    """Vision transformer: pre-norm, every patch sees all, GELU, Glorot's uniform weights; the first position is read.

    Args:
        size: "base", "large" or "huge": where the sizes come from that are not given.
        layers, width, heads, hidden: as `gpt2`.
        classes: outputs of the head over the first position, the class token; None for none.

    Returns:
        Chain: `layers` times an attention and a feed-forward, a layer norm, a softmax head.

    Raises:
        ValueError, TypeError: as `gpt2`.

    Notes:
        Dosovitskiy et al. 2021 (arXiv 2010.11929); github.com/google-research/vision_transformer, models_vit.py: Glorot
        uniform weights, biases of the feed-forward N(0, 1e-12); eps 1e-6. That code begins the head at zero, which
        passes no gradient in the first step: here it is N(0, 1/width). x holds the patches' embeddings, positions and
        the class token, 197 positions for 224 x 224 pixels. No dropout.

    Examples:
        >>> chain = vit(layers=2, width=64, heads=4, classes=10)
        >>> chain.head.over, chain.init.name
        ('first', 'glorot_uniform')
    """
    layers, width, heads, hidden = _sizes("vit", VIT, size, layers=layers, width=width, heads=heads, hidden=hidden)
    attention = Block(Norm("layer"), Attention(heads), skip=1.0)
    feed_forward = Block(Norm("layer"), Linear(hidden, bias_std=1e-6), "gelu", Linear(width, bias_std=1e-6), skip=1.0)
    return Chain(
        depth=layers,
        width=width,
        init="glorot_uniform",
        norm_eps=1e-6,
        blocks=(attention, feed_forward),
        last=(Norm("layer"),),
        head=None if classes is None else Head("softmax", _outputs("classes", classes), over="first"),
    )


def resnet(
    layers: int = 50,
    *,
    width: int = 64,
    channels: int = 3,
    classes: int | None = 1000,
    small: bool = False,
    zero_last: bool = False,
) -> Chain:
    """ResNet: convolutions with batch norm in blocks of two or three, ReLU behind the sum; He's normals by fan_out.

    Args:
        layers: 18 or 34 (blocks of two 3 x 3 convolutions), 50, 101 or 152 (bottlenecks of three, whose ends are four
            times as wide).
        width: channels of the first stage; they double from stage to stage.
        channels: of the images.
        classes: outputs of the head over the mean of all positions; None for none.
        small: True for images of 32 x 32: they enter by one 3 x 3 convolution, in place of 7 x 7 with stride 2 and a
            max pool.
        zero_last: True for a weight of 0 of each block's last norm, so that a block begins as its skip.

    Returns:
        Chain of depth 1: its blocks are not all alike, so it has no slope; `log10_grad_weight` tells layer by layer.

    Raises:
        ValueError, TypeError: other numbers of layers, sizes that are no positive ints, switches that are no bools.

    Notes:
        He et al. 2016 (arXiv 1512.03385), table 1. As github.com/pytorch/vision, models/resnet.py, has it: weights
        N(0, 2/fan_out), the stride on the 3 x 3 convolution of a bottleneck, a projection where shapes change;
        zero_last is its zero_init_residual (Goyal et al. 2017, arXiv 1706.02677, section 5.1). The head's weight is
        PyTorch's default of a linear layer; no biases. Runs need `positions`, as (224, 224), and two columns at least
        in the last stage, whose batch norms take all from one: a batch of two, or 64 x 64.

    Examples:
        >>> chain = resnet(18, width=8, classes=10, small=True)
        >>> print(*chain.blocks[2].skip, sep=", ")
        conv 16 (1, stride 2), batch norm
        >>> len(chain.layers)  # the head's is the 18th, projections are not counted
        20
    """
    stages, convolutions = _layers_of("resnet", RESNET, layers)
    width = checks.integer("resnet width", width, 1, MAX_WIDTH // 32)
    _require_switches("resnet", small=small, zero_last=zero_last)
    stem = [Conv(width, 3) if small else Conv(width, 7, stride=2), Norm("batch"), "relu"]
    stem += [] if small else [Pool("max", 3, stride=2, padding=1)]
    entering = width
    blocks = []
    for stage, count in enumerate(stages):
        for place in range(count):
            stride = 2 if stage > 0 and place == 0 else 1
            inside = width * 2**stage
            units = inside * (4 if convolutions == 3 else 1)
            skip = [Conv(units, 1, stride=stride), Norm("batch")] if stride > 1 or units != entering else 1.0
            steps = [Conv(inside, 3, stride=stride), Norm("batch"), "relu", Conv(units, 3)]
            if convolutions == 3:
                steps = [Conv(inside, 1), Norm("batch"), "relu", *steps[:3], Conv(units, 1)]
            last = Norm("batch", weight=0.0 if zero_last else None)
            blocks.append(Block(*steps, last, skip=skip, after="relu"))
            entering = units
    return Chain(
        depth=1,
        width=checks.integer("resnet channels", channels, 1, MAX_WIDTH),
        init=HE_FAN_OUT,
        first=(Block(*stem),),
        blocks=tuple(blocks),
        last=(Pool("mean"),),
        head=None if classes is None else Head("softmax", _outputs("classes", classes), init="torch_linear_default"),
    )


def vgg(
    layers: int = 16,
    *,
    width: int = 64,
    channels: int = 3,
    hidden: int = 4096,
    classes: int | None = 1000,
    norm: str | None = None,
) -> Chain:
    """VGG: 3 x 3 convolutions in five stages with a max pool behind each, then three dense layers; ReLU, no skips.

    Args:
        layers: 11, 13, 16 or 19.
        width: channels of the first stage; they double from stage to stage up to 8 width.
        channels: of the images.
        hidden: units of the two dense layers before the head; None for neither, as for small images.
        classes: outputs of the head; None for none.
        norm: "batch" for batch norm behind every convolution; None for none.

    Returns:
        Chain of depth 1: its blocks are not all alike, so it has no slope; `log10_grad_weight` tells layer by layer.

    Raises:
        ValueError, TypeError: as `resnet`; another norm.

    Notes:
        Simonyan, Zisserman 2015 (arXiv 1409.1556), table 1. As github.com/pytorch/vision, models/vgg.py, has it:
        convolutions N(0, 2/fan_out), dense layers N(0, 0.01^2), biases zero. No dropout. Runs need `positions`, as
        (224, 224), of which 7 x 7 are left for the dense layers, or (32, 32) and 1; the mean over windows that
        torchvision takes of other sizes is left out.

    Examples:
        >>> chain = vgg(11, width=8, hidden=None, classes=10)
        >>> print(chain.blocks[0])
        conv 8 (3), relu, max pool (2)
    """
    stages = _layers_of("vgg", VGG, layers)
    width = checks.integer("vgg width", width, 1, MAX_WIDTH // 8)
    checks.choice("vgg norm", norm, (None, "batch"))
    blocks = []
    for stage, count in enumerate(stages):
        for place in range(count):
            steps = [Conv(width * min(2**stage, 8), 3), *([] if norm is None else [Norm(norm)]), "relu"]
            blocks.append(Block(*steps, *([Pool("max", 2)] if place == count - 1 else [])))
    last: list[Any] = [Flatten()]
    if hidden is not None:
        hidden = checks.integer("vgg hidden", hidden, 1, MAX_WIDTH)
        last += [Block(Linear(hidden, init="normal(0.01)"), "relu")] * 2
    return Chain(
        depth=1,
        width=checks.integer("vgg channels", channels, 1, MAX_WIDTH),
        init=HE_FAN_OUT,
        blocks=tuple(blocks),
        last=tuple(last),
        head=None if classes is None else Head("softmax", _outputs("classes", classes), init="normal(0.01)"),
    )


PRESETS: dict[str, Any] = {"gpt2": (gpt2, GPT2), "llama": (llama, LLAMA), "bert": (bert, BERT), "vit": (vit, VIT)}
PRESETS["resnet"] = (resnet, RESNET)
PRESETS["vgg"] = (vgg, VGG)


def preset(text: Any, *, layers: int | None = None, width: int | None = None) -> Chain | None:
    """The chain of "gpt2", "llama:8b", "resnet:152" and the like, as the command line has them; None where the text is
    no such word.

    Raises:
        ValueError, TypeError: an unknown size; a depth or width that the preset refuses.
    """
    name, _, size = str(text).partition(":")
    if name not in PRESETS:
        return None
    make, table = PRESETS[name]
    if make not in (resnet, vgg):
        return make(**({"size": size} if size else {}), layers=layers, width=width)
    if layers is not None:
        raise ValueError(f"{name} has its layers in its name, as {name}:{max(table)}, and no depth, got depth={layers}")
    given = {} if width is None else {"width": width}
    return make(**given, **({"layers": int(size) if size.isdecimal() else size} if size else {}))


def preset_fields(text: Any, **sizes: int | None) -> dict:
    """The fields of a preset's chain that differ from their defaults; none where the text is no such word."""
    chain = preset(text, **sizes)
    known = () if chain is None else dataclasses.fields(chain)
    return {field.name: value for field in known if (value := getattr(chain, field.name)) != field.default}


def _sizes(name: str, table: dict[str, tuple[int, ...]], size: str, **given: int | None) -> tuple[int, ...]:
    """The sizes of a row in the order of its words, those that are given in their place; heads and feed-forward follow
    a given width."""
    usual = dict(zip(given, table[checks.choice(f"{name} size", size, tuple(table))], strict=True))
    most = {"layers": MAX_DEPTH}
    own = {
        word: checks.integer(f"{name} {word}", value, 1, most.get(word, MAX_WIDTH))
        for word, value in given.items()
        if value is not None
    }
    units = usual["width"] // usual["heads"]
    if "width" in own:
        width = own["width"]
        if "heads" not in own and width % units:
            raise ValueError(
                f"{name} width must be a multiple of {units}, the units of a head of {size!r}, unless heads= is given; "
                f"got {width}"
            )
        own.setdefault("hidden", -(-8 * width // 96) * 32 if name == "llama" else 4 * width)
    heads = own.get("heads", own.get("width", usual["width"]) // units)
    if "kv_heads" in usual:
        shared = usual["heads"] // usual["kv_heads"]
        own.setdefault("kv_heads", heads if "heads" in own or heads % shared else heads // shared)
    return tuple((usual | {"heads": heads} | own)[word] for word in given)


def _head(vocabulary: int | None, init: str | Init) -> Head | None:
    return None if vocabulary is None else Head("softmax", _outputs("vocabulary", vocabulary), init=init)


def _outputs(word: str, count: int) -> int:
    return checks.integer(word, count, 2, MAX_WIDTH)


def _layers_of(name: str, table: dict[int, tuple], layers: int) -> tuple:
    """The row of a table that goes by numbers of layers."""
    if isinstance(layers, bool) or not isinstance(layers, int) or layers not in table:
        raise ValueError(f"{name} layers must be one of {', '.join(map(str, table))}, got {layers!r}")
    return table[layers]


def _require_switches(name: str, **switches: bool) -> None:
    for word, value in switches.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} {word} must be True or False, got {value!r}")
