"""What forces add to the gradient by the weights is right, whichever way it is found."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import random_potential
from network_oracle import sensitive_potential
from torch import Tensor
from torch_geometric.data import Batch
from training_cases import tiny_trainer

from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import kernel_folder
from jmp_md.nn.kernels.run import Kernels
from jmp_md.potential import Potential
from jmp_md.training.batches import to_data, to_structures
from jmp_md.training.data.frame import make_frame
from jmp_md.training.derivatives import Derivatives, Differences, derivatives_of, exact
from jmp_md.training.loss import Scales, mean_terms, residuals
from jmp_md.training.sections import OptimiserSection

SMOOTH = GraphPolicy.smooth(4.0, 3.5, 2.9, 4.5)
RANKED = GraphPolicy("smooth", (4.0, 4.0, 2.9, 4.5), (5, 4, 2, 6))
POTENTIALS = {
    "smooth": lambda: sensitive_potential(SMOOTH),
    "ranked": lambda: sensitive_potential(RANKED),
    "deep": lambda: random_potential(graph=SMOOTH, num_before_skip=2, num_blocks=3, num_atom=2),
    "shallow": lambda: random_potential(
        graph=SMOOTH, num_before_skip=0, num_after_skip=0, num_concat=0, num_atom=0,
        num_output_afteratom=0, num_atom_emb_layers=0, num_global_out_layers=0,
    ),
    "wide": lambda: random_potential(graph=SMOOTH, emb_size_atom=36, emb_size_edge=36),
    "repulsion": lambda: random_potential(graph=SMOOTH, head={"repulsion": 1.5, "bias": True}),
}  # fmt: skip


def differences() -> Differences:
    folder = kernel_folder()
    if shutil.which("g++") is None or folder is None:
        pytest.skip("there are no kernels without a C++ compiler")
    return Differences(folder)


def molecules() -> Batch:
    """A molecule, an atom alone, a crystal with stress and a molecule without a force."""
    rng = np.random.default_rng(3)
    frames = []
    for k, (numbers, cell) in enumerate(
        [([8, 6, 1, 1, 7], None), ([2], None), ([12, 8, 8], 4.0), ([6, 6, 1, 8], None)]
    ):
        n = len(numbers)
        positions = 1.3 * np.arange(n)[:, None] * [0.8, 0.5, 0.2] + 0.3 * rng.normal(size=(n, 3))
        frame = make_frame(
            "frames", k, numbers=numbers, positions=positions, energy=rng.normal(),
            forces=rng.normal(size=(n, 3)),
            stress=None if cell is None else 0.01 * rng.normal(size=(3, 3)),
            cell=None if cell is None else cell * np.eye(3) + 0.1 * rng.normal(size=(3, 3)),
        )  # fmt: skip
        frames.append(to_data(frame, SMOOTH.cutoff))
    frames[3].forces[1] = np.nan
    return Batch.from_data_list(frames)


def loss_of(
    potential: Potential,
    derivatives: Derivatives,
    forces: bool = True,
    stress: bool = True,
    moved: float = 0.0,
) -> Tensor:
    scales, batch = Scales(0.7, 0.4), molecules()
    batch.positions = batch.positions + moved
    found = residuals(
        potential, batch, scales, forces=forces, stress=stress, derivatives=derivatives
    )
    terms = [x for x in (found.energy, found.forces, found.stress) if x is not None]
    sums, counts = mean_terms(terms)
    return (sums / counts * sums.new_tensor([1.0, 3.0, 20.0][: len(sums)])).sum()


def gradients(potential: Potential, loss: Tensor) -> dict[str, Tensor]:
    names = dict(potential.named_parameters())
    found = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    pairs = zip(names.items(), found, strict=True)
    return {n: torch.zeros_like(w) if g is None else g for (n, w), g in pairs}


@pytest.mark.parametrize(
    ("name", "terms"),
    [(name, (True, True)) for name in POTENTIALS]
    + [("repulsion", terms) for terms in [(True, False), (False, True), (False, False)]],
)
def test_differences_give_the_gradient_of_every_weight(name: str, terms: tuple[bool, bool]) -> None:
    potential = POTENTIALS[name]().requires_grad_(True)
    expected_loss = loss_of(potential, exact, *terms)
    loss = loss_of(potential, differences(), *terms)
    assert torch.allclose(loss, expected_loss, rtol=1e-10)
    expected, found = gradients(potential, expected_loss), gradients(potential, loss)
    largest = max(float(g.norm()) for g in expected.values())
    for weight, gradient in expected.items():
        allowed = 2e-5 * float(gradient.norm()) + 1e-8 * largest
        assert float((found[weight] - gradient).norm()) < allowed, weight


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    potential = POTENTIALS["smooth"]().requires_grad_(True)
    found = gradients(potential, loss_of(potential, differences()))
    generator = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(g.shape, generator=generator).to(g) for n, g in found.items()}
    step, losses = 1e-5, []
    for sign in (-1, 1):
        moved = copy.deepcopy(potential)
        with torch.no_grad():
            for name, weight in moved.named_parameters():
                weight.add_(direction[name], alpha=sign * step)
        losses.append(float(loss_of(moved, exact).detach()))
    slope = (losses[1] - losses[0]) / (2 * step)
    expected = sum(float((found[n] * direction[n]).sum()) for n in found)
    assert slope == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("moved", [0.0, 300.0])
def test_single_precision_is_precise_enough_wherever_structures_are(moved: float) -> None:
    potential = POTENTIALS["repulsion"]().requires_grad_(True)
    expected = gradients(potential, loss_of(potential, exact))
    single = copy.deepcopy(potential).float()
    found = gradients(single, loss_of(single, differences(), moved=moved))
    error = sum(float((found[n] - g).square().sum()) for n, g in expected.items())
    size = sum(float(g.square().sum()) for g in expected.values())
    assert error < (1e-3) ** 2 * size


def test_weights_that_are_kept_get_no_gradient_and_disturb_no_other() -> None:
    potential = POTENTIALS["smooth"]().requires_grad_(True)
    expected = gradients(potential, loss_of(potential, exact))
    potential.embedding.requires_grad_(False)
    potential.backbone.int_blocks[0].requires_grad_(False)
    loss = loss_of(potential, differences())
    trained = {n: p for n, p in potential.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    for name, gradient in zip(trained, found, strict=True):
        given = torch.zeros_like(trained[name]) if gradient is None else gradient
        assert torch.allclose(given, expected[name], rtol=1e-4, atol=1e-7), name


def test_gradients_by_weights_repeat_on_the_same_threads() -> None:
    potential = POTENTIALS["smooth"]().requires_grad_(True)
    differences()
    kernels = Kernels(potential.fold(trained=True), kernel_folder() or Path())
    s = potential.prepare(to_structures(molecules()), 0.01)
    graph, seeds = potential.graph_of(s), torch.linspace(-1, 1, len(s.numbers)).double()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            found.append(kernels.by_weights(s.numbers, graph, seeds))
    finally:
        torch.set_num_threads(before)
    for one, three, again in zip(*found, strict=True):
        assert torch.equal(three, again)
        assert torch.allclose(one, three, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("potential", "reason"),
    [
        (lambda: random_potential(smooth=False), "energies jump where its graphs change"),
        (lambda: random_potential(direct=True), "it has direct forces"),
        (lambda: random_potential(emb_size_edge=160), "160 columns"),
    ],
)
def test_what_differences_are_not_for_is_differentiated_twice(potential, reason: str) -> None:
    made = potential().requires_grad_(True)
    way = differences()
    assert reason in way.problem(made)
    stress = made.force_head is None
    expected, loss = loss_of(made, exact, stress=stress), loss_of(made, way, stress=stress)
    assert torch.equal(loss, expected)


@pytest.mark.parametrize(
    "setting",
    [{"derivatives": "exact"}, {"dropout": 0.1}, {"edge_dropout": 0.1}, {"precision": "bf16"},
     {"recompute": True}],
)  # fmt: skip
def test_settings_that_differences_cannot_follow_choose_the_exact_way(setting: dict) -> None:
    assert derivatives_of(OptimiserSection(**setting), sharded=False) is exact
    assert derivatives_of(OptimiserSection(), sharded=True) is exact


def test_kernels_that_are_switched_off_are_not_trained_with(monkeypatch) -> None:
    monkeypatch.setenv("JMP_MD_KERNELS", "off")
    assert derivatives_of(OptimiserSection(), sharded=False) is exact


def test_a_run_learns_the_same_either_way_and_says_which(tmp_path: Path) -> None:
    differences()
    losses = {}
    for way in ("auto", "exact"):
        made = tiny_trainer(tmp_path / way, f"optimiser.derivatives={way}", "optimiser.epochs=2")
        assert ("differences of kernels" in " ".join(made.notes)) == (way == "auto")
        losses[way] = [row["loss"] for row in made.run().history]
    assert losses["auto"] == pytest.approx(losses["exact"], rel=1e-3)
