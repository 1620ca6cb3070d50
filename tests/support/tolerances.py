"""How far two computations of the same number may differ by rounding, whatever processor and kernel did them."""

import torch


def rounding(dtype: torch.dtype, *terms: int, size: float = 1.0) -> float:
    """Bound the difference between two orders of summation, one sum feeding the next.

    A sum of n terms in floating point is off by at most (n − 1) · ε/2 times the sum of its terms' magnitudes (Higham
    2002, §4.2), so two orders differ by at most n · ε times that.

    Args:
        dtype: of the arithmetic.
        *terms: length n of each sum on the way, e.g. d_model for a projection and d_k for a score.
        size: sum of the magnitudes of the terms; 1 for what is normalised, such as probabilities.
    """
    return sum(terms) * torch.finfo(dtype).eps * size
