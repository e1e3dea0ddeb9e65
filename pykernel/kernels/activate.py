# SPDX-License-Identifier: BSD-3-Clause
"""Activation functions on blocks with exponents: lanes, callbacks, asymptotes and log2 forms beyond floats."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

from pykernel.kernels import activation_lanes, blocks, jit
from pykernel.kernels.activation_lanes import PIECEWISE
from pykernel.kernels.calls import call_c, call_row
from pykernel.kernels.lanes import absolute, greater, larger, less, spread, total, where, widen
from pykernel.kernels.memory import advance, cast_like, load, narrow_like, pointer, store, zero_like

# Facts of a row, by position in the float64 array that kernels receive; what calls it, in the int64 array: the number
# of a built-in row and the kernels of its value and slope, the C function of a user's that Numba compiled, the one that
# calls Python back.
LEFT, RIGHT, BEFORE, AFTER, AT_ZERO, MAX_SLOPE, FLAT, SLOPE_0, LOG2_VALUE, LOG2_SLOPE, PARAMETER, *_ENDS = range(16)
OVERFLOWS, VALUE_LEFT, VALUE_RIGHT, SLOPE_LEFT, SLOPE_RIGHT = _ENDS  # whether a format may, and what then
FACTS = 16
ROW, VALUE, SLOPE, COMPILED, CALLBACK, CALLS = range(6)
# What a callback is asked for; it fills `out` (and `sign` for the log2 forms) from z.
ASK_VALUE, ASK_SLOPE, ASK_LOG2_VALUE, ASK_LOG2_SLOPE, ASK_PLAIN_VALUE, ASK_PLAIN_SLOPE = range(6)
_FAR = 2.0**60
_TINY = 2.0**-900


def ask(spec, phi, what, count, z, out, sign):
    """Fill out (and sign, for the log2 forms) with what activation function `phi` of a run answers for z."""
    raise NotImplementedError("for njit code")


@overload(ask)
def _ask(spec, phi, what, count, z, out, sign):
    """Of a record: by address. Of anything else the row number alone is known: a built-in row, no log2 forms."""
    if isinstance(spec, types.Record):

        def by_address(spec, phi, what, count, z, out, sign):
            calls = advance(pointer(spec.calls, 1), phi * CALLS)
            if what <= ASK_SLOPE and calls[VALUE] != 0:
                call_row(
                    calls[VALUE + what], calls[ROW], pointer(spec.facts, 1.0)[phi * FACTS + PARAMETER], z, out, count
                )
            elif what <= ASK_SLOPE and calls[COMPILED] != 0:
                call_c(calls[COMPILED], what, count, z, out, sign)
            else:
                call_c(calls[CALLBACK], what, count, z, out, sign)

        return by_address

    def built_in(spec, phi, what, count, z, out, sign):
        parameter = pointer(spec.facts, 1.0)[PARAMETER]
        if what == ASK_VALUE:
            activation_lanes.values(pointer(spec.calls, 1)[ROW], parameter, z, out, count)
        else:
            activation_lanes.slopes(pointer(spec.calls, 1)[ROW], parameter, z, out, count)

    return built_in


@jit
def _true(x, e, count, out):
    """True values where float64 holds them, else +-1e300."""
    if e == 0:
        for i in range(0, count, 16):
            store(out, i, widen(load(x, i)))
    else:
        for i in range(count):
            out[i] = min(max(math.ldexp(float(x[i]), max(min(e, 3000), -3000)), -1e300), 1e300)


@jit
def _from_log2(sign, log2, out, count):
    """out = sign * 2^(log2 - e); returns e."""
    top = -math.inf
    for i in range(count):
        top = max(top, log2[i])
    if not abs(top) < blocks.FARTHEST:  # zero, or smaller than an exponent can say
        for i in range(count):
            out[i] = log2[i] if math.isnan(log2[i]) else 0.0
        return 0
    e = int(math.floor(top))  # noqa: RUF046 - a float in Numba
    for i in range(count):
        out[i] = sign[i] * 2.0 ** (log2[i] - e)
    return e


@jit
def _narrow(wide, out, count):
    for i in range(0, count, 16):
        store(out, i, narrow_like(load(wide, i), out))


@jit
def _at_infinity(x, out, count, left, right):
    """out of -inf and inf in x."""
    for i in range(count):
        if abs(x[i]) == math.inf:
            out[i] = right if x[i] > 0 else left


@jit
def values(spec, work, phi, x, e, out, n, B):
    """out = phi(x 2^e) for a block of n units and B columns, phi one of the run's functions; the exponent of out."""
    facts, row = advance(pointer(spec.facts, 1.0), phi * FACTS), pointer(spec.calls, 1)[phi * CALLS + ROW]
    count = blocks.size(n, B)
    if row == PIECEWISE or (spec.bound and e < 0 and facts[AT_ZERO] == 0.0):
        below, above = (facts[LEFT], facts[RIGHT]) if row == PIECEWISE else (facts[BEFORE], facts[AFTER])
        right, left, none = spread(cast_like(above, out)), spread(cast_like(below, out)), zero_like(out)
        for i in range(0, count, 16):
            v = load(x, i)
            minus = none if below == 0.0 else v * left
            store(out, i, where(less(v, none), minus, v * right))
        return blocks.renormalise(out, count, e, spec.bound)
    z, y, sign = pointer(work.wide0, 1.0), pointer(work.wide1, 1.0), pointer(work.wide2, 1.0)
    _true(x, e, count, z)
    if spec.bound == 0:
        ask(spec, phi, ASK_PLAIN_VALUE, count, z, y, sign)
    else:
        ask(spec, phi, ASK_VALUE, count, z, y, sign)
        on_a_line = False
        if e > 0 and (facts[LEFT] != 0.0 or facts[RIGHT] != 0.0):
            for i in range(count):
                on_a_line |= abs(z[i]) > _FAR and (facts[RIGHT] if x[i] > 0 else facts[LEFT]) != 0.0
        if on_a_line:
            for i in range(count):
                v = float(x[i])
                far = v * (facts[RIGHT] if v > 0 else facts[LEFT])
                y[i] = far if abs(z[i]) > _FAR and far != 0.0 else math.ldexp(y[i], max(-e, -3000))
        else:  # near, or all on a side where phi is bounded
            e = 0
    if facts[OVERFLOWS] != 0.0:
        _at_infinity(x, y, count, facts[VALUE_LEFT], facts[VALUE_RIGHT])
    blocks.clear_padding(y, n, B)
    if spec.bound and facts[LOG2_VALUE] != 0.0 and blocks.top(y, count) < _TINY and blocks.top(x, count) > 0.0:
        ask(spec, phi, ASK_LOG2_VALUE, count, z, y, sign)
        for i in range(count):
            if x[i] == 0 and facts[AT_ZERO] == 0.0:
                y[i] = -math.inf
        if facts[OVERFLOWS] != 0.0:
            _at_infinity(x, y, count, -math.inf, -math.inf)
        _mask_padding(y, n, B)
        e = _from_log2(sign, y, y, count)
    e = blocks.renormalise(y, count, e, spec.bound)
    _narrow(y, out, count)
    return e


@jit
def _mask_padding(log2, n, B):
    if n % 16:
        for b in range(B):
            for lane in range(n % 16, 16):
                log2[(n // 16 * B + b) * 16 + lane] = -math.inf


@jit
def slopes(spec, work, phi, x, e, g, e_g, n, B):
    """g *= phi'(x 2^e) for a block of n units and B columns.

    Returns:
        The exponent of g, the fraction of saturated pairs, the fraction of dead units.
    """
    facts, row = advance(pointer(spec.facts, 1.0), phi * FACTS), pointer(spec.calls, 1)[phi * CALLS + ROW]
    panels = (n + 15) // 16
    count = panels * B * 16
    z, s, sign = pointer(work.wide0, 1.0), pointer(work.wide1, 1.0), pointer(work.wide2, 1.0)
    one_sided = row == PIECEWISE or (spec.bound and e < 0)
    if one_sided:
        below, above = (facts[LEFT], facts[RIGHT]) if row == PIECEWISE else (facts[BEFORE], facts[AFTER])
        right, left, middle, none = spread(above), spread(below), spread(facts[SLOPE_0]), spread(0.0)
        for i in range(0, count, 16):
            v = widen(load(x, i))
            store(s, i, where(greater(v, none), right, where(less(v, none), left, middle)))
    else:
        _true(x, e, count, z)
        ask(spec, phi, ASK_SLOPE if spec.bound else ASK_PLAIN_SLOPE, count, z, s, sign)
        if e > 0 and (facts[LEFT] != 0.0 or facts[RIGHT] != 0.0):
            for i in range(count):
                if abs(z[i]) > _FAR:
                    s[i] = facts[RIGHT] if z[i] > 0 else facts[LEFT]
        if facts[OVERFLOWS] != 0.0:
            _at_infinity(x, s, count, facts[SLOPE_LEFT], facts[SLOPE_RIGHT])
    saturated, dead = _count(s, n, B, 0.01 * facts[MAX_SLOPE])
    dead *= facts[FLAT]
    if one_sided:
        for i in range(0, count, 16):
            store(g, i, narrow_like(widen(load(g, i)) * load(s, i), g))
        return blocks.renormalise(g, count, e_g, spec.bound), saturated, dead
    if spec.bound and facts[LOG2_SLOPE] != 0.0 and e >= 0 and _top_units(s, n, B) < _TINY:
        ask(spec, phi, ASK_LOG2_SLOPE, count, z, s, sign)
        if facts[OVERFLOWS] != 0.0:
            _at_infinity(x, s, count, -math.inf, -math.inf)
        for i in range(count):
            v = float(g[i])
            s[i] = s[i] + math.log2(abs(v)) if v != 0.0 else -math.inf
            if v < 0.0:
                sign[i] = -sign[i]
        e_g += _from_log2(sign, s, s, count)
    else:
        for i in range(0, count, 16):
            store(s, i, widen(load(g, i)) * load(s, i))
    e_g = blocks.renormalise(s, count, e_g, spec.bound)
    _narrow(s, g, count)
    return e_g, saturated, dead


@jit
def _top_units(s, n, B):
    """The largest magnitude among the units, the padding left out."""
    m = 0.0
    for p in range((n + 15) // 16):
        for b in range(B):
            for lane in range(min(16, n - 16 * p)):
                m = max(m, abs(s[(p * B + b) * 16 + lane]))
    return m


@jit
def _count(s, n, B, bound):
    """Fractions of pairs with a slope below `bound`, and of units without any slope."""
    panels = n // 16
    one, none, limit = spread(1.0), spread(0.0), spread(bound)
    low, still = none, none
    for p in range(panels):
        alive = none
        for b in range(B):
            v = absolute(load(s, (p * B + b) * 16))
            low = low + where(less(v, limit), one, none)
            alive = larger(v, alive)
        still = still + where(greater(alive, none), none, one)
    saturated, dead = total(low), total(still)
    for lane in range(n % 16):
        most = 0.0
        for b in range(B):
            v = abs(s[(panels * B + b) * 16 + lane])
            saturated += v < bound
            most = max(most, v) if v == v else 1.0
        dead += most == 0.0
    return saturated / (n * B), dead / n


def facts(activation, parameter, overflows=False):
    """The float64 array of a row's facts; `overflows`: in a run with formats."""
    ends = [*activation.limits("value"), *activation.limits("slope")] if overflows else [0.0] * 4
    return np.array(
        [
            activation.left,
            activation.right,
            activation.before_zero,
            activation.after_zero,
            activation.at_zero,
            activation.max_slope,
            activation.flat,
            activation_lanes.slope_at_zero(activation),
            activation.log2_value is not None,
            activation.log2_slope is not None,
            parameter,
            overflows,
            *ends,
        ],
        dtype=np.float64,
    )
