"""Angular functions in forms that factorise, the key to not listing triplets.

Y_l(z) = sqrt((2l+1)/(4 pi)) P_l(z) of the angle between two edges is the same for all weights, and
P_l(cos theta) of a dihedral is a cosine series of degree l. Constants and coefficients fold into
the weights that multiply the radial basis; what remains per pair of edges is a Legendre function
or a pair (cos m alpha, sin m alpha).
"""

import math

import numpy as np
import torch
from numpy.polynomial import chebyshev, legendre
from torch import Tensor

from jmp_md.graph.smooth import smoothstep


def legendre_scales(num_spherical: int) -> Tensor:
    """c with Y_l(z) = c[l] f_l(z), f of :func:`weighted_legendre`; (num_spherical,), float64."""
    scales = np.array(_scales(num_spherical)[:num_spherical])
    return torch.from_numpy(scales * _normalisation(num_spherical))


def legendre_factors(num_spherical: int) -> Tensor:
    """s with P_l = s[l] f_l, f of :func:`weighted_legendre`; (num_spherical,), float64."""
    return torch.tensor(_scales(num_spherical)[:num_spherical], dtype=torch.float64)


def _scales(count: int) -> list[float]:
    """s with P_l = s[l] f_l; two at least."""
    scales = [1.0, 1.0]
    for degree in range(1, count - 1):
        scales.append(-degree / (degree + 1) * scales[degree - 1])
    return scales


def cosine_coefficients(num_spherical: int) -> Tensor:
    """C with Y_l(cos t) - Y_l(0) = sum_m C[l, m] cos(m t) and Y_l(0) in the last column.

    Shape (num_spherical, num_spherical + 1), float64. Columns 0 .. num_spherical - 1 belong to
    cos(m t), the last to a constant that stays where the dihedral is undefined.
    """
    norm = _normalisation(num_spherical)
    rows = np.zeros((num_spherical, num_spherical + 1))
    for degree, own in enumerate(np.eye(num_spherical)):
        at_zero = legendre.legval(0.0, own)
        rows[degree, : degree + 1] = chebyshev.poly2cheb(legendre.leg2poly(own)[: degree + 1])
        rows[degree, 0] -= at_zero
        rows[degree, -1] = at_zero
    return torch.from_numpy(rows * norm[:, None])


def _normalisation(num_spherical: int) -> np.ndarray:
    return np.sqrt((2 * np.arange(num_spherical) + 1) / (4 * math.pi))


def weighted_legendre(z: Tensor, weight: Tensor, count: int) -> Tensor:
    """weight * f_l(z), l = 0 .. count-1, before the last dimension: (..., n) -> (..., count, n).

    f_l is the Legendre polynomial P_l but for a constant, chosen so that Bonnet's recursion
    (l + 1) P_(l+1) = (2 l + 1) z P_l - l P_(l-1) takes one operation. Powers would take no fewer
    and lose digits where they cancel, half of those that bfloat16 has.
    """
    terms = [weight]
    if count > 1:
        terms.append(weight * z)
    scales = _scales(count)
    for degree in range(1, count - 1):
        ratio = -(2 * degree + 1) / degree * scales[degree] / scales[degree - 1]
        terms.append(torch.addcmul(terms[degree - 1], terms[degree], z, value=ratio))
    return torch.stack(terms, dim=-2)


def orthogonal_frame(axis: Tensor) -> Tensor:
    """Two unit vectors orthogonal to each unit vector and to each other.

    (..., 3) -> (..., 2, 3). Branch-free form of Duff et al., J. Comput. Graph. Tech. 6 (2017) 1.
    It jumps where the axis crosses z = 0, which cancels: only differences of azimuths enter.
    """
    x, y, z = axis.unbind(-1)
    sign = torch.where(z >= 0, torch.ones_like(z), -torch.ones_like(z))
    a = -1.0 / (sign + z)
    b = x * y * a
    e1 = torch.stack([1.0 + sign * x * x * a, sign * b, -sign * x], dim=-1)
    e2 = torch.stack([b, sign + y * y * a, -y], dim=-1)
    return torch.stack([e1, e2], dim=-2)


def azimuth_series(in_plane: Tensor, count: int, inline_sin2: float, smooth: bool) -> Tensor:
    """s, then +-s cos(m alpha); 1, then +-s sin(m alpha), m = 1 .. count-1: 2 * count rows.

    ``in_plane`` (..., 2, n) are the components of unit vectors in the plane orthogonal to an
    axis: sin(phi) (cos alpha, sin alpha). Returns (..., 2 * count, n). Signs, + + - - + + by m,
    spare the recursion an operation; only products of two series are of use, where they cancel.
    With the C of :func:`cosine_coefficients`,

        Y_l(cos(a - b)) = C[l, -1] + sum_m C[l, m] (f_m(a) f_m(b) + g_m(a) g_m(b)),

    f the first ``count`` rows, g the others but for the 1, which the constant goes with.

    s is 1 except near the axis, where alpha loses meaning. Official rule: s = 0 below a
    threshold of sin^2(phi). Smooth rule: s rises from 0 to 1 over sin^2(phi) in
    [0, ``inline_sin2``] with two continuous derivatives (spec section 8.3).
    """
    sin2 = in_plane.square().sum(dim=-2, keepdim=True)
    # Below this, rounding decides the direction; 1e-7 in float64 is the spec's rule for sin(phi).
    threshold = 1e-14 if in_plane.dtype == torch.float64 else 1e-8
    defined = sin2 > threshold
    direction = in_plane * torch.where(defined, sin2, torch.ones_like(sin2)).rsqrt()
    s = defined.to(in_plane.dtype)
    if smooth:
        s = s * smoothstep(sin2 * (1.0 / inline_sin2))
    pairs = [torch.cat([s, torch.ones_like(s)], dim=-2)]
    if count > 1:
        # Chebyshev: f(m + 1) = 2 cos(alpha) f(m) - f(m - 1), from f(0) = (s, 0).
        pairs.append(s * direction)
        twice = 2.0 * direction.narrow(-2, 0, 1)
        before = torch.cat([s, torch.zeros_like(s)], dim=-2)
        for m in range(2, count):
            sign = -1.0 if m % 2 == 0 else 1.0
            pairs.append(torch.addcmul(before, twice, pairs[-1], value=sign))
            before = pairs[-2]
    return torch.stack(pairs, dim=-2).flatten(-3, -2)
