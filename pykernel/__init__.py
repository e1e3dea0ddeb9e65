# SPDX-License-Identifier: BSD-3-Clause
"""Signal and gradient propagation through very deep random chains, and how gradients scale with depth."""

import importlib

from pykernel._core import version as __version__

# Public name -> the module that has it, imported when the name is first used.
_WHERE = {
    "Chain": "chain",
    "Residual": "parts",
    "Head": "parts",
    "Clip": "parts",
    "Block": "layers",
    "Linear": "layers",
    "Norm": "layers",
    "Gated": "layers",
    "Attention": "layers",
    "Conv": "conv",
    "Drive": "drive",
    "Pool": "conv",
    "Flatten": "conv",
    "Dropout": "layers",
    "Scale": "layers",
    "Formats": "formats",
    "Activation": "activation",
    "leaky_relu": "activations",
    "elu": "activations",
    "Init": "init",
    "VarianceScaling": "inits",
    "Normal": "inits",
    "Uniform": "inits",
    "TruncatedNormal": "inits",
    "Constant": "inits",
    "Identity": "inits",
    "Orthogonal": "inits",
    "DeltaOrthogonal": "inits",
    "Fixup": "inits",
    "Sparse": "inits",
    "StudentT": "inits",
    "Stable": "inits",
    "Given": "init",
    "from_torch": "bridges.torch_modules",
    "init_torch_": "bridges.torch_modules",
    "from_jax": "bridges.arrays",
    "init_jax": "bridges.arrays",
    "propagate": "propagation",
    "trace": "tracing",
    "weights": "simulate",
    "train": "training.face",
    "coordinate_check": "training.widths",
    "gradients": "simulate",
    "Propagation": "propagation",
    "predict": "theory.predict",
    "Prediction": "theory.predict",
    "critical_gain": "theory.critical",
    "phase_diagram": "theory.phases",
    "depth_scales": "theory.scales",
    "jacobian_spectrum": "theory.spectrum",
    "recommend": "theory.recommend",
    "show_config": "config",
    "TooLarge": "machine",
    "sweep": "sweeps",
    "open": "sweeps",
    "StandardError": "sweeps",
    "Profiles": "sweeps",
    "Replicas": "sweeps",
    "StoreError": "sweeps",
    "plot_sweep": "plot.sweeps",
    "report": "webpage.write",
    "get_include": "embed",
    "get_cmake_dir": "embed",
    "get_library": "embed",
}

_MODULES = ("blocks",)  # rooms whose functions are reached by the room's name

__all__ = ["__version__", *_MODULES, *_WHERE]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"pykernel.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'pykernel' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"pykernel.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__
