"""New networks have the sizes of the presets and start from the published initialisation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from factories import random_potential
from torch import nn

from jmp_md.errors import InputError
from jmp_md.nn.backbone import GemNetOC
from jmp_md.nn.config import BackboneConfig, preset
from jmp_md.nn.layers import he_orthogonal_, mlp_head
from jmp_md.nn.shapes import shapes_only


def weights(*shape: int, fan_in: int | None = None) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weight = torch.empty(*shape)
        he_orthogonal_(weight, fan_in)
    return weight


# --- He-orthogonal weights ------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(256, 512), (64, 64), (512, 16)])
def test_rows_have_no_mean_and_the_same_variance(shape: tuple[int, int]) -> None:
    """Each row standardised (unbiased), times sqrt(1 / fan_in)."""
    weight = weights(*shape)
    n = shape[1]
    torch.testing.assert_close(weight.mean(dim=1), torch.zeros(shape[0]), rtol=0, atol=1e-6)
    expected = torch.full((shape[0],), 1 / n)
    torch.testing.assert_close(weight.var(dim=1, unbiased=True), expected, rtol=5e-3, atol=0)


def test_rows_stay_nearly_orthogonal() -> None:
    weight = weights(32, 512)
    overlap = weight @ weight.T - torch.diag((weight @ weight.T).diag())
    random = torch.nn.functional.normalize(torch.randn(32, 512, generator=torch.Generator()))
    assert overlap.abs().max() < 0.02
    assert (random @ random.T).fill_diagonal_(0).abs().max() > 0.1


def test_unit_normal_input_keeps_its_variance() -> None:
    x = torch.randn(4000, 128, generator=torch.Generator().manual_seed(1))
    assert float((x @ weights(96, 128).T).var()) == pytest.approx(1.0, abs=0.03)


def test_another_fan_in_scales_the_rows() -> None:
    torch.testing.assert_close(weights(8, 16, fan_in=64), 0.5 * weights(8, 16))


def test_basis_weights_are_initialised_per_output_function() -> None:
    bases = GemNetOC(preset("jmp-xs")).bases
    n_radial, n_angular, n_out = bases.mlp_cbf_qint.weight.shape
    assert (n_radial, n_angular, n_out) == (64, 4, 8)
    variance = bases.mlp_cbf_qint.weight.detach().var(dim=1, unbiased=True)  # (radial, out)
    expected = torch.full_like(variance, 1 / (n_radial * n_angular))
    torch.testing.assert_close(variance, expected, rtol=1e-2, atol=0)
    assert not torch.equal(bases.mlp_cbf_qint.weight[..., 0], bases.mlp_cbf_qint.weight[..., 1])


def test_scale_factors_embeddings_and_heads_start_as_published() -> None:
    potential = random_potential(emb_size_atom=256, num_elements=120)
    factors = [b for name, b in potential.named_buffers() if name.endswith("scale_factor")]
    assert len(factors) == 2 * 11 + 3
    assert all(float(f) == 1.0 for f in factors)
    embedding = potential.embedding.weight
    assert float(embedding.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(embedding.std()) == pytest.approx(1.0, abs=0.02)
    head = potential.energy_head[0].weight  # torch's default: uniform in +-1 / sqrt(fan_in)
    assert float(head.abs().max()) == pytest.approx(1 / math.sqrt(256), rel=1e-3)
    assert float(head.std()) == pytest.approx(1 / math.sqrt(3 * 256), rel=0.02)


# --- Presets --------------------------------------------------------------------------------


def shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = GemNetOC(config).state_dict()
    return {f"backbone.{name}": tuple(value.shape) for name, value in state.items()}


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", ["jmp-s", "jmp-l"])
def test_presets_have_the_tensors_of_the_released_models(name: str, shared: Path) -> None:
    lines = (shared / "reference" / f"{name}-state-dict.tsv").read_text().splitlines()
    released = {}
    for line in lines:
        key, size = line.split("\t")
        released[key] = () if size == "scalar" else tuple(int(n) for n in size.split("x"))
    expected = {
        key: size
        for key, size in released.items()
        if key.startswith("backbone.")
        and ".seq_energy_pre." not in key  # the same tensors as layers
        and not key.endswith(("rbf.offset", "rbf.temps"))  # one copy here, eight there
    }
    got = shapes(preset(name, direct_forces=True))
    radial = {got.pop(f"backbone.radial.{part}") for part in ("offset", "temps")}
    assert radial == {released["backbone.bases.radial_basis.rbf.offset"]} == {(128,)}
    assert got == expected


def test_largest_preset_has_the_published_number_of_parameters() -> None:
    """234.3 million with the embedding and four heads for energies and forces."""
    config = preset("jmp-l", direct_forces=True)
    with torch.device("meta"):
        modules = [GemNetOC(config), nn.Embedding(config.num_elements, config.emb_size_atom)]
        for width in 4 * [config.emb_size_atom, config.emb_size_edge]:
            modules.append(mlp_head(width, bias=True))
    assert round(sum(n_parameters(m) for m in modules) / 1e6, 1) == 234.3


def test_smallest_preset_is_small() -> None:
    assert 1e5 < n_parameters(GemNetOC(preset("jmp-xs"))) < 1e6


def test_unknown_presets_and_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="'jmp-m': choose one of jmp-s, jmp-l, jmp-xs"):
        preset("jmp-m")
    with pytest.raises(InputError, match="emb_size_rbf = 0: must be at least 1"):
        BackboneConfig(emb_size_rbf=0)
    with pytest.raises(InputError, match="num_blocks = -1"):
        BackboneConfig(num_blocks=-1)
    assert BackboneConfig(num_concat=0).num_concat == 0


def test_shapes_alone_draw_no_random_numbers_and_are_those_of_the_network() -> None:
    config = preset("jmp-xs")
    state = torch.get_rng_state()
    with shapes_only():
        network = GemNetOC(config)
        embedding = nn.Embedding(3, 4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.is_meta for module in (network, embedding) for p in module.parameters())
    filled = GemNetOC(config).state_dict()
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in filled.items()
    }
