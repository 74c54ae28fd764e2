"""Recursions and Fourier series of angles are the Legendre polynomials they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from torch import Tensor

from jmp_md.nn.angular import (
    azimuth_series,
    cosine_coefficients,
    legendre_scales,
    orthogonal_frame,
    smoothstep,
    weighted_legendre,
)

S = 7
INLINE_SIN2 = 0.03


def harmonics(z: np.ndarray) -> np.ndarray:
    """Y_l(z) for l < S, (S, n)."""
    norm = np.sqrt((2 * np.arange(S) + 1) / (4 * math.pi))
    return norm[:, None] * np.stack([eval_legendre(order, z) for order in range(S)])


def random_units(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


# --- Series ---------------------------------------------------------------------------------


def test_cosine_series_is_a_legendre_polynomial_of_a_cosine() -> None:
    t = np.linspace(0, math.pi, 41)
    cosines = np.concatenate([np.cos(np.arange(S)[:, None] * t), np.ones((1, len(t)))])
    np.testing.assert_allclose(cosine_coefficients(S).numpy() @ cosines, harmonics(np.cos(t)))


def test_cosine_series_without_its_cosines_is_the_value_at_a_right_angle() -> None:
    """What stays where the dihedral is undefined; the l - 1 zeros of odd l must be exact."""
    rest = cosine_coefficients(S)[:, -1].numpy()
    np.testing.assert_allclose(rest, harmonics(np.zeros(1))[:, 0], atol=1e-15)
    assert (rest[1::2] == 0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_scaled_functions_are_legendre_polynomials(count: int) -> None:
    z = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64).view(3, 3)
    weight = torch.linspace(0.5, 2.0, 9, dtype=torch.float64).view(3, 3)
    got = weighted_legendre(z, weight, count) * legendre_scales(count).unsqueeze(-1)
    expected = harmonics(z.flatten().numpy())[:count].reshape(count, 3, 3).swapaxes(0, 1)
    expected = weight.unsqueeze(1).numpy() * expected
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-14)


def test_functions_lose_no_digits_to_their_sum() -> None:
    """Rounding to bfloat16, as in the blocks, costs what bfloat16 has; powers would cancel."""
    z = torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    scales = legendre_scales(S).unsqueeze(-1)
    exact = weighted_legendre(z, torch.ones_like(z), S)
    error = scales * (exact.bfloat16().double() - exact)
    assert error.abs().max() < 2**-8 * (scales * exact).abs().max()
    assert (scales * exact).abs().max(dim=1).values.max() < 1.1  # no larger than what they give


def test_one_angular_function_is_a_constant() -> None:
    assert legendre_scales(1).tolist() == [pytest.approx(0.5 / math.sqrt(math.pi))]
    assert cosine_coefficients(1)[0].tolist() == [0.0, legendre_scales(1).item()]


def test_smoothstep_has_two_continuous_derivatives() -> None:
    t = torch.tensor([-0.5, 0.0, 0.25, 0.5, 1.0, 1.5], dtype=torch.float64, requires_grad=True)
    value = smoothstep(t)
    (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), t)
    assert value.tolist() == pytest.approx([0, 0, 0.103515625, 0.5, 1, 1])
    assert slope.tolist() == pytest.approx([0, 0, 1.0546875, 1.875, 0, 0])
    assert curvature.tolist() == pytest.approx([0, 0, 5.625, 0, 0, 0], abs=1e-13)


# --- Frames ---------------------------------------------------------------------------------

SPECIAL = [[0, 0, 1], [0, 0, -1], [0, 0, -1 + 1e-16], [1, 0, 0], [0, 1, 0], [0.6, -0.8, -0.0]]


def test_frames_are_orthonormal() -> None:
    axes = torch.cat([random_units(200), torch.tensor(SPECIAL, dtype=torch.float64)])
    basis = torch.cat([orthogonal_frame(axes), axes.unsqueeze(1)], dim=1)
    eye = torch.eye(3, dtype=torch.float64).expand(len(axes), 3, 3)
    torch.testing.assert_close(basis @ basis.transpose(1, 2), eye, rtol=0, atol=1e-15)


def test_frames_near_the_south_pole_stay_orthonormal() -> None:
    """1 / (sign + z) would lose all digits there with the wrong sign."""
    tilt = torch.logspace(-16, -1, 40, dtype=torch.float64)
    zero = torch.zeros_like(tilt)
    axes = torch.stack([tilt.sin(), zero, -tilt.cos()], dim=1)
    frame = orthogonal_frame(axes)
    eye = torch.eye(2, dtype=torch.float64).expand(40, 2, 2)
    torch.testing.assert_close(frame @ frame.transpose(1, 2), eye, rtol=0, atol=1e-15)


def test_frame_of_an_empty_slot_has_finite_derivatives() -> None:
    axis = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    frame = orthogonal_frame(axis)
    (first,) = torch.autograd.grad(frame.square().sum(), axis, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), axis)
    assert bool(frame.isfinite().all() and first.isfinite().all() and second.isfinite().all())


# --- Azimuths -------------------------------------------------------------------------------


def in_plane(axis: Tensor, units: Tensor) -> Tensor:
    """Components of unit vectors (n, 3) orthogonal to one axis: (2, n)."""
    return orthogonal_frame(axis) @ units.T


def dihedral_series(axis: Tensor, c: Tensor, d: Tensor, smooth: bool) -> Tensor:
    """Y_l(cos theta) (S, n, n) of the dihedrals between all c and d, by azimuths."""
    out, inp = (azimuth_series(in_plane(axis, u), S, INLINE_SIN2, smooth) for u in (c, d))
    of_cosines, constant = cosine_coefficients(S).split([S, 1], dim=1)
    coefficients = torch.cat([of_cosines, constant, of_cosines[:, 1:]], dim=1)
    return torch.einsum("lr,rc,rd->lcd", coefficients, out, inp)


def dihedral_cosines(axis: Tensor, c: Tensor, d: Tensor) -> Tensor:
    p, q = (torch.linalg.cross(u, axis.expand_as(u)) for u in (c, d))
    return (p / p.norm(dim=1, keepdim=True)) @ (q / q.norm(dim=1, keepdim=True)).T


@pytest.mark.parametrize("axis", [*SPECIAL, [0.36, 0.48, -0.8]])
def test_differences_of_azimuths_give_legendre_polynomials_of_dihedrals(axis: list[float]) -> None:
    axis_ = torch.tensor(axis, dtype=torch.float64)
    c, d = random_units(9, seed=1), random_units(8, seed=2)
    got = dihedral_series(axis_, c, d, smooth=False).numpy()
    cosines = dihedral_cosines(axis_, c, d).numpy()
    expected = np.stack([harmonics(row) for row in cosines], axis=1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_smooth_dihedrals_fade_to_the_value_at_a_right_angle() -> None:
    """Y_l(0) + s_c s_d [Y_l(cos theta) - Y_l(0)] of spec section 8.3."""
    axis = torch.tensor([0.36, 0.48, -0.8], dtype=torch.float64)
    d = random_units(6, seed=2)
    tilt = orthogonal_frame(axis)[0] + 0.3 * orthogonal_frame(axis)[1]
    c = torch.stack([axis + size * tilt for size in (0.0, 0.02, 0.1, 0.15, 1.0)])
    c = c / c.norm(dim=1, keepdim=True)

    def share(units: Tensor) -> Tensor:
        return smoothstep((1 - (units @ axis).square()) / INLINE_SIN2)

    assert 0 < share(c)[1] < share(c)[2] < 1
    assert share(c)[4] == 1
    official = dihedral_series(axis, c, d, smooth=False)
    at_zero = torch.from_numpy(harmonics(np.zeros(1))).unsqueeze(-1)
    expected = at_zero + torch.outer(share(c), share(d)) * (official - at_zero)
    got = dihedral_series(axis, c, d, smooth=True)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(got[:, 0], at_zero[:, 0].expand(S, 6), rtol=0, atol=1e-15)


@pytest.mark.parametrize("smooth", [False, True])
def test_derivatives_of_azimuths_are_right(smooth: bool) -> None:
    """Inside the switch, where the smooth rule is neither 0 nor 1, and outside it."""
    generator = torch.Generator().manual_seed(3)
    x = 0.6 * torch.randn(2, 5, generator=generator, dtype=torch.float64)
    x[:, 0] = torch.tensor([0.08, -0.06])
    assert 0 < x[:, 0].square().sum() < INLINE_SIN2
    x.requires_grad_()

    def series(v: Tensor) -> Tensor:
        return azimuth_series(v, 4, INLINE_SIN2, smooth)

    assert torch.autograd.gradcheck(series, x)
    assert torch.autograd.gradgradcheck(series, x)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_derivatives_of_azimuths_are_finite_on_and_near_the_axis(
    dtype: torch.dtype, smooth: bool
) -> None:
    sizes = [0.0, 1e-300, 1e-160, 1e-38, 1e-20, 1e-9, 9e-8, 2e-7, 9e-5, 2e-4, 1e-2]
    x = torch.tensor([sizes, [0.5 * s for s in sizes]], dtype=dtype, requires_grad=True)
    series = azimuth_series(x, S, INLINE_SIN2, smooth)
    (first,) = torch.autograd.grad(series.square().sum() + series.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum() + first.square().sum(), x)
    assert bool(series.isfinite().all() and first.isfinite().all() and second.isfinite().all())
    assert not bool(first[:, 0].any())
    assert bool((series[S] == 1).all())


def test_undefined_azimuths_leave_only_the_constant() -> None:
    x = torch.tensor([[0.0, 5e-8, 5e-7], [0.0, 5e-8, 5e-7]], dtype=torch.float64)
    series = azimuth_series(x, S, INLINE_SIN2, smooth=False)
    assert not bool(series[:S, :2].any())
    assert not bool(series[S + 1 :, :2].any())
    assert series[0, 2] == 1
