# SPDX-License-Identifier: BSD-3-Clause
"""The public names for type checkers and editors: `__init__.py` imports each one when it is first used, and not
before."""

from pykernel import blocks as blocks
from pykernel.activation import Activation as Activation
from pykernel.activations import elu as elu
from pykernel.activations import leaky_relu as leaky_relu
from pykernel.bridges.arrays import from_jax as from_jax
from pykernel.bridges.arrays import init_jax as init_jax
from pykernel.bridges.torch_modules import from_torch as from_torch
from pykernel.bridges.torch_modules import init_torch_ as init_torch_
from pykernel.chain import Chain as Chain
from pykernel.config import show_config as show_config
from pykernel.conv import Conv as Conv
from pykernel.conv import Flatten as Flatten
from pykernel.conv import Pool as Pool
from pykernel.embed import get_cmake_dir as get_cmake_dir
from pykernel.embed import get_include as get_include
from pykernel.embed import get_library as get_library
from pykernel.formats import Formats as Formats
from pykernel.init import Given as Given
from pykernel.init import Init as Init
from pykernel.inits import Constant as Constant
from pykernel.inits import DeltaOrthogonal as DeltaOrthogonal
from pykernel.inits import Fixup as Fixup
from pykernel.inits import Identity as Identity
from pykernel.inits import Normal as Normal
from pykernel.inits import Orthogonal as Orthogonal
from pykernel.inits import Sparse as Sparse
from pykernel.inits import Stable as Stable
from pykernel.inits import StudentT as StudentT
from pykernel.inits import TruncatedNormal as TruncatedNormal
from pykernel.inits import Uniform as Uniform
from pykernel.inits import VarianceScaling as VarianceScaling
from pykernel.layers import Attention as Attention
from pykernel.layers import Block as Block
from pykernel.layers import Dropout as Dropout
from pykernel.layers import Gated as Gated
from pykernel.layers import Linear as Linear
from pykernel.layers import Norm as Norm
from pykernel.layers import Scale as Scale
from pykernel.machine import TooLarge as TooLarge
from pykernel.parts import Clip as Clip
from pykernel.parts import Head as Head
from pykernel.parts import Residual as Residual
from pykernel.plot.sweeps import plot_sweep as plot_sweep
from pykernel.propagation import Propagation as Propagation
from pykernel.propagation import propagate as propagate
from pykernel.simulate import gradients as gradients
from pykernel.simulate import weights as weights
from pykernel.sweeps import Profiles as Profiles
from pykernel.sweeps import Replicas as Replicas
from pykernel.sweeps import StandardError as StandardError
from pykernel.sweeps import StoreError as StoreError
from pykernel.sweeps import open as open
from pykernel.sweeps import sweep as sweep
from pykernel.theory.critical import critical_gain as critical_gain
from pykernel.theory.phases import phase_diagram as phase_diagram
from pykernel.theory.predict import Prediction as Prediction
from pykernel.theory.predict import predict as predict
from pykernel.theory.recommend import recommend as recommend
from pykernel.theory.scales import depth_scales as depth_scales
from pykernel.theory.spectrum import jacobian_spectrum as jacobian_spectrum
from pykernel.tracing import trace as trace
from pykernel.webpage.write import report as report

__version__: str
