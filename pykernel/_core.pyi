# SPDX-License-Identifier: BSD-3-Clause
"""What the extension module has, for type checkers and editors; csrc/bind.cpp and bind_kernels.cpp define it."""

from collections.abc import Sequence

import numpy as np

from pykernel.program import Program

version: str

def isa() -> str:
    """The instruction set in use."""

def run(
    program: Program,
    engine: str,
    first: int,
    count: int,
    threads: int,
    memory: int,
    own: Sequence[Sequence[tuple[int, bool]]] = ...,
) -> dict[str, np.ndarray]:
    """Rows of replicas first .. first + count - 1, float64.

    `own`: of each activation (address, whether of one number) of the user's value and slope; none for built-in ones.
    """

def trace(
    program: Program, engine: str, replica: int, memory: int, own: Sequence[Sequence[tuple[int, bool]]] = ...
) -> np.ndarray:
    """Exponent and log10 of the norm of what every op wrote, (entries, 2): forward the ops in order, backward the
    registers that each read."""

def memory(program: Program, engine: str) -> int:
    """Bytes without which one worker cannot run a Program."""

def one_input(program: Program) -> bool:
    """Whether the matrix-free engine runs a Program by sums over units alone."""

class constants:
    """A module inside: numbers that Python and C++ share."""

    log2_e: float
    log10_2: float
    selu_alpha: float
    selu_lambda: float
    gelu_cubic: float
    range: int
    lost_direction: float
    preferred_direction: float

class draws:
    """A module inside: drawn arrays by address, and their products."""

    @staticmethod
    def tall(
        seed: int, purpose: int, layer: int, replica: int, units: int, first: int, count: int, threads: int
    ) -> np.ndarray:
        """Standard normals of a tall array, columns first .. first + count - 1, (units, count) float32."""

    @staticmethod
    def product(
        distribution: str,
        parameter: float,
        seed: int,
        layer: int,
        replica: int,
        rows: int,
        columns: int,
        x: np.ndarray,
        transposed: bool,
        threads: int,
    ) -> np.ndarray:
        """A drawn matrix, or transposed its transpose, times columns, in their dtype."""

class kernels:
    """A module inside: single kernels, for tests and benchmarks. Their arguments have no names."""

    @staticmethod
    def isas() -> list[str]:
        """The instruction sets of this machine, the best first."""

    @staticmethod
    def peak_multiply_add(n: int, /) -> float:
        """The sum of n fused multiply-adds of 16 lanes, to be timed."""

    @staticmethod
    def peak_draw(n: int, /) -> float:
        """The sum of n normals, to be timed."""

    @staticmethod
    def peak_read(x: np.ndarray, times: int, /) -> float:
        """The sum of x (float32), read from end to end so many times, to be timed."""

    @staticmethod
    def draws(
        isa: str, distribution: int, parameter: float, seed: int, layer: int, replica: int, rows: int, columns: int, /
    ) -> np.ndarray:
        """Unit draws of a weight, (rows, columns) float32."""

    @staticmethod
    def tall(
        isa: str, draw: int, seed: int, purpose: int, layer: int, replica: int, units: int, batch: int, /
    ) -> np.ndarray:
        """Unit draws at a tall address, float32; rows up to the next multiple of 16 are zero."""

    @staticmethod
    def multiply_f32(
        isa: str,
        distribution: int,
        parameter: float,
        seed: int,
        layer: int,
        replica: int,
        rows: int,
        columns: int,
        scale: float,
        x: np.ndarray,
        transposed: bool,
        source: str,
        parts: int,
        /,
    ) -> np.ndarray:
        """A drawn weight times x, or transposed times x, in so many parts; source: "drawn", "kept" or "given"."""

    multiply_f64 = multiply_f32

    @staticmethod
    def gram_f32(isa: str, x: np.ndarray, /) -> np.ndarray:
        """The Gram matrix of the columns of x, float64."""

    gram_f64 = gram_f32

    @staticmethod
    def round_f32(
        isa: str,
        x: np.ndarray,
        fraction: int,
        lowest: int,
        largest: float,
        infinite: bool,
        times: int = 1,
        words: np.ndarray | None = None,
    ) -> np.ndarray:
        """x (n, B) as a number format holds it, padded to 16 rows; rounded so many times over, with uint32 words (n, B)
        by chance."""

    round_f64 = round_f32
