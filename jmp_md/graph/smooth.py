"""A step without an edge, by which weights of edges and dihedrals vanish."""

from torch import Tensor


def smoothstep(t: Tensor) -> Tensor:
    """0 below t = 0, 1 above t = 1, 6 t^5 - 15 t^4 + 10 t^3 between: continuous to order two."""
    t = t.clamp(0.0, 1.0)
    return t * t * t * (10.0 + t * (6.0 * t - 15.0))
