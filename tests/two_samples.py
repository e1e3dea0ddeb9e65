# SPDX-License-Identifier: BSD-3-Clause
"""Whether two samples of several columns have one law."""

import warnings

import numpy as np
from scipy.stats import ks_2samp


def smallest_p(first, second):
    """Of the two-sample Kolmogorov-Smirnov tests of all columns, multiplied by their number (Bonferroni)."""
    # dead chains give -inf (a value like another for a rank test), 0/0 factors nan
    clean = lambda column: np.maximum(np.nan_to_num(column, nan=-998.0), -998.0)
    pairs = [(clean(a), clean(b)) for a, b in zip(first, second, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return len(pairs) * min(ks_2samp(a, b, method="asymp").pvalue for a, b in pairs)
