"""Official checkpoints arrive complete under native names, or not at all."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jmp_md.checkpoints.hyperparameters import PRETRAINING
from jmp_md.checkpoints.official import OfficialCheckpoint, read_official, to_native
from jmp_md.errors import CheckpointError, InputError
from jmp_md.graph.policy import GraphPolicy
from jmp_md.header import HeadInfo, ModelHeader
from jmp_md.nn.backbone import GemNetOC
from jmp_md.nn.config import BackboneConfig, preset

SMALL = BackboneConfig(
    **{"num_spherical": 2, "num_radial": 4, "num_blocks": 1, "num_before_skip": 1},
    **{"num_after_skip": 1, "num_atom": 1, "num_output_afteratom": 1, "num_atom_emb_layers": 1},
    **{"num_global_out_layers": 1, "emb_size_atom": 4, "emb_size_edge": 6, "num_elements": 9},
    **{f"emb_size_{k}": 2 for k in ("trip_in", "trip_out", "quad_in", "quad_out", "aint_in")},
    **{f"emb_size_{k}": 2 for k in ("aint_out", "rbf", "cbf", "sbf")},
    direct_forces=True,
)
RADIAL_BASES = (
    *("radial_basis", "radial_basis_aeaint", "radial_basis_aint"),
    *(f"cbf_basis_{k}int.radial_basis" for k in ("q", "t", "ae", "ea")),
    "sbf_basis_qint.radial_basis",
)


def official_state(config: BackboneConfig, kind: str) -> dict[str, Tensor]:
    """Random weights under official names, every tensor with its own values."""
    state = {"embedding.atom_embedding.weight": torch.rand(9, config.emb_size_atom)}
    for name, value in GemNetOC(config).state_dict().items():
        if name.startswith("radial."):
            copies = [f"bases.{b}.rbf.{name.removeprefix('radial.')}" for b in RADIAL_BASES]
            state |= {f"backbone.{c}": value for c in copies}
            continue
        state[f"backbone.{name}"] = torch.rand_like(value)
        if name.startswith("out_blocks") and ".layers." in name:
            shared = name.replace(".layers.", ".seq_energy_pre.")
            state[f"backbone.{shared}"] = state[f"backbone.{name}"]
    widths = {"energy": config.emb_size_atom}
    if config.direct_forces:
        widths["forces"] = config.emb_size_edge
    tasks = [f".{t}" for t in range(4)] if kind == "pretrain" else [""]
    for branch, width in widths.items():
        for task in tasks:
            prefix = f"{'output.' if kind == 'pretrain' else ''}out_{branch}{task}"
            for layer in (0, 2, 4, 6):
                state[f"{prefix}.{layer}.weight"] = torch.rand(width, width)
                if kind == "pretrain" or branch == "forces":
                    state[f"{prefix}.{layer}.bias"] = torch.rand(width)
            state[f"{prefix}.8.weight"] = torch.rand(1, width)
    if kind == "finetune":
        state["embedding.weight"] = state.pop("embedding.atom_embedding.weight")
    else:
        steps = {f"task_steps._typed_moduledict_{t}.value": torch.tensor(3) for t in PRETRAINING}
        state |= steps
    return state


def is_averaged(name: str) -> bool:
    fixed = name.endswith(("rbf.offset", "rbf.temps", "scale_factor"))
    return not (fixed or ".seq_energy_pre." in name or name.startswith("task_steps"))


def checkpoint(kind: str = "pretrain", config: BackboneConfig = SMALL) -> dict[str, Any]:
    """What a file of the official code holds."""
    state = official_state(config, kind)
    backbone = {name: value for name, value in vars(config).items() if name != "basis_cutoff"}
    backbone |= {"absolute_rbf_cutoff": 12.0, "qint_tags": [1, 2], "scale_file": "/a/b.pt"}
    backbone |= {"envelope": {"name": "polynomial", "exponent": 5}, "ln": False}
    hyper: dict[str, Any] = {"backbone": backbone}
    if kind == "pretrain":
        hyper["tasks"] = [
            {"name": name, "normalization": {"y": {"std": t + 2.0}, "force": {"std": t + 0.5}}}
            for t, name in enumerate(PRETRAINING)
        ]
    else:
        scales = {"y": {"mean": -17.0, "std": 0.25}, "force": {"mean": 0.0, "std": 1.25}}
        hyper |= {"normalization": scales, "cutoff": 7.0, "max_neighbors": 100}
        hyper["molecule"] = "aspirin"
    content = {"state_dict": state, "hyper_parameters": hyper, "epoch": 1}
    if kind == "pretrain":
        ema = tuple(value + 1 for name, value in state.items() if is_averaged(name))
        content["optimizer_states"] = [{"opt": {"param_groups": [{}]}, "ema": ema}]
    return content


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def save_to_file(content: dict[str, Any]) -> Path:
        torch.save(content, tmp_path / "model.pt")
        return tmp_path / "model.pt"

    return save_to_file


Save = Callable[[dict[str, Any]], Path]


def test_averaged_weights_are_taken_where_there_are_any(save: Save) -> None:
    content = checkpoint()
    read = read_official(save(content))
    assert (read.kind, read.weights, read.config) == ("pretrain", "ema", SMALL)
    assert read.state.keys() == content["state_dict"].keys()
    for name, raw in content["state_dict"].items():
        averaged = is_averaged(name) or ".seq_energy_pre." in name
        assert torch.equal(read.state[name], raw + 1 if averaged else raw), name


def test_raw_weights_are_taken_when_asked_for(save: Save) -> None:
    content = checkpoint()
    read = read_official(save(content), weights="raw")
    assert read.weights == "raw"
    assert all(torch.equal(read.state[k], v) for k, v in content["state_dict"].items())
    with pytest.raises(InputError, match="'averaged'"):
        read_official(save(content), weights="averaged")


def test_a_file_without_averaged_weights_gives_raw_ones_and_says_so(save: Save) -> None:
    with pytest.warns(UserWarning, match=r"model\.pt has no EMA weights") as caught:
        read = read_official(save(checkpoint("finetune")))
    assert len(caught) == 1
    assert (read.weights, read.kind) == ("raw", "finetune")


def test_heads_of_a_pretraining_checkpoint_carry_its_normalisation(save: Save) -> None:
    header, tensors = to_native(read_official(save(checkpoint())), "jmp-test")
    assert ModelHeader.from_json(header.to_json()) == header
    assert (header.name, header.weights, header.architecture) == ("jmp-test", "ema", SMALL)
    assert header.licence == "CC-BY-NC-4.0 (non-commercial)"
    assert [head.name for head in header.heads] == ["oc20", "oc22", "ani1x", "transition1x"]
    assert [head.energy_scale for head in header.heads] == [2, 3, 4, 5]
    assert [head.force_scale for head in header.heads] == [0.5, 1.5, 2.5, 3.5]
    assert [head.graph.cutoff for head in header.heads] == [12, 12, 8, 8]
    assert header.head("ani1x").elements == (1, 6, 7, 8)
    assert not any(head.has_references for head in header.heads)
    assert all(head.bias for head in header.heads)
    assert tensors["heads.oc22.forces.layers.8.weight"].shape == (1, 6)


def test_tasks_that_had_to_be_ignored_have_the_published_normalisation(save: Save) -> None:
    content = checkpoint()
    del content["hyper_parameters"]["tasks"]
    heads = read_official(save(content)).heads
    assert [head.name for head in heads] == list(PRETRAINING)
    assert heads[0].energy_scale == 24.901469505465872
    assert heads[3].force_scale == 0.3591422140598297


def test_a_conservative_finetuned_model_scales_energies_as_forces(save: Save) -> None:
    content = checkpoint("finetune", replace(SMALL, direct_forces=False))
    read = read_official(save(content), weights="raw")
    assert read.heads == (
        HeadInfo(
            name="energy",
            graph=GraphPolicy.official(7.0, 100),
            energy_scale=1.25,
            energy_mean=-17.0,
            level_of_theory="PBE/def2-SVP",
        ),
    )
    header, tensors = to_native(read, "aspirin")
    assert not header.heads[0].bias
    assert not any(name.endswith(".bias") for name in tensors)
    weight = content["state_dict"]["out_energy.8.weight"]
    assert torch.equal(tensors["heads.energy.energy.layers.8.weight"], weight)


def test_a_head_with_biases_in_one_branch_gets_zeros_in_the_other(save: Save) -> None:
    header, tensors = to_native(read_official(save(checkpoint("finetune")), "raw"), "direct")
    (head,) = header.heads
    assert (head.energy_scale, head.force_scale, head.bias) == (0.25, 1.25, True)
    assert tensors["heads.energy.energy.layers.6.bias"].tolist() == [0, 0, 0, 0]
    assert tensors["heads.energy.forces.layers.6.bias"].shape == (6,)


def test_the_second_copy_of_the_output_layers_wins_as_in_the_official_loader(save: Save) -> None:
    content = checkpoint()
    twin = "backbone.out_blocks.0.seq_energy_pre.0.linear.weight"
    content["state_dict"][twin] = content["state_dict"][twin] + 5
    _, tensors = to_native(read_official(save(content), weights="raw"), "x")
    native = tensors["backbone.out_blocks.0.layers.0.linear.weight"]
    assert torch.equal(native, content["state_dict"][twin])


def test_copies_of_the_radial_basis_must_agree(save: Save) -> None:
    content = checkpoint()
    name = "backbone.bases.cbf_basis_tint.radial_basis.rbf.temps"
    content["state_dict"][name] = content["state_dict"][name] * 1.001
    with pytest.raises(CheckpointError, match=f"{name} differs"):
        to_native(read_official(save(content)), "x")


def test_native_tensors_fit_the_network(save: Save) -> None:
    read = read_official(save(checkpoint()))
    _, tensors = to_native(read, "x")
    backbone = {k.removeprefix("backbone."): v for k, v in tensors.items() if "backbone." in k}
    network = GemNetOC(read.config)
    network.load_state_dict(backbone, strict=True)
    others = {name.split(".")[0] for name in tensors if "backbone." not in name}
    assert others == {"embedding", "heads"}


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def _shorten_ema(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["ema"] = content["optimizer_states"][0]["ema"][:-1]


def _reverse_ema(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["ema"] = content["optimizer_states"][0]["ema"][::-1]


def _spoil_ema(content: dict[str, Any]) -> None:
    content["optimizer_states"][0]["ema"][3].view(-1)[0] = float("nan")


class Run:
    """Creates a file when it is unpickled by ordinary means."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch canary",)


EMBEDDING = "embedding.atom_embedding.weight"
DENSE = "backbone.int_blocks.0.dense_ca.linear.weight"
BACKBONE = ("hyper_parameters", "backbone")
GROUPS = ("optimizer_states", 0, "opt", "param_groups")
TASK = ("hyper_parameters", "tasks", 1)
BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "no state_dict": (_drop("state_dict"), "state_dict = NoneType"),
    "no hyper_parameters": (_drop("hyper_parameters"), "hyper_parameters = None"),
    "nested hyper_parameters": (_set("hyper_parameters", to=[]), "hyper_parameters = []"),
    "missing tensor": (_drop("state_dict", DENSE), f"1 tensors are missing: {DENSE}"),
    "missing twin": (
        _drop("state_dict", "backbone.out_blocks.1.layers.0.linear.weight"),
        "missing: backbone.out_blocks.1.layers.0.linear.weight",
    ),
    "missing bias": (_drop("state_dict", "output.out_energy.2.4.bias"), "heads.ani1x.energy"),
    "unexpected tensor": (
        _set("state_dict", "backbone.norm.weight", to=torch.ones(3)),
        "1 tensors are unexpected: backbone.norm.weight",
    ),
    "wrong shape": (
        _set("state_dict", DENSE, to=torch.ones(6, 5)),
        f"{DENSE} has shape (6, 5), expected (6, 6)",
    ),
    "wrong type": (_set("state_dict", EMBEDDING, to=[1.0]), f"{EMBEDDING!r} is not a tensor"),
    "integers": (
        _set("state_dict", EMBEDDING, to=torch.ones(9, 4, dtype=torch.int64)),
        f"{EMBEDDING!r} is not a tensor of real numbers",
    ),
    "NaN": (
        _set(
            "state_dict", "backbone.out_blocks.0.scale_sum.scale_factor", to=torch.tensor(torch.nan)
        ),
        "NaN or infinity, first 'backbone.out_blocks.0.scale_sum.scale_factor'",
    ),
    "NaN in EMA": (_spoil_ema, "1 tensors of its ema weights hold NaN"),
    "EMA too short": (_shorten_ema, "EMA tensors for"),
    "EMA in another order": (_reverse_ema, "the EMA tensor in the place of"),
    "EMA of two groups": (_set(*GROUPS, to=[{}, {}]), "several optimiser groups"),
    "EMA of no tensors": (_set("optimizer_states", 0, "ema", to=(1, 2)), "not a sequence"),
    "size missing": (_drop(*BACKBONE, "emb_size_edge"), "backbone.emb_size_edge = None"),
    "size as text": (_set(*BACKBONE, "num_blocks", to="4"), "backbone.num_blocks = '4'"),
    "absurd size": (_set(*BACKBONE, "num_blocks", to=10**9), "backbone.num_blocks = 1000000000"),
    "another size": (_set(*BACKBONE, "num_blocks", to=2), "tensors are missing"),
    "layer norm": (_set(*BACKBONE, "ln", to=True), "backbone.ln = True changes"),
    "no scale factors": (
        _set(*BACKBONE, "replace_scale_factors_with_ln", to=True),
        "backbone.replace_scale_factors_with_ln = True",
    ),
    "other Gaussians": (
        _set(*BACKBONE, "old_gaussian_implementation", to=True),
        "backbone.old_gaussian_implementation = True",
    ),
    "envelope": (
        _set(*BACKBONE, "envelope", to={"name": "polynomial", "exponent": 6}),
        "changes what the network computes",
    ),
    "relative radius": (
        _set(*BACKBONE, "absolute_rbf_cutoff", to=None),
        "absolute_rbf_cutoff = None",
    ),
    "other basis": (_set(*BACKBONE, "sbf", to={"name": "spherical_harmonics"}), "backbone.sbf"),
    "intensive": (_set(*BACKBONE, "extensive", to=False), "backbone.extensive = False"),
    "scaled basis": (_set(*BACKBONE, "scale_basis", to=True), "backbone.scale_basis = True"),
    "several targets": (_set(*BACKBONE, "num_targets", to=3), "backbone.num_targets = 3"),
    "tensor setting": (_set(*BACKBONE, "qint_tags", to=torch.ones(2)), "backbone.qint_tags"),
    "unknown setting": (_set(*BACKBONE, "use_torsion", to=True), "backbone.use_torsion = True"),
    "task unknown": (_set(*TASK, "name", to="spice"), "unknown task 'spice'"),
    "task missing": (_drop(*TASK), "3 tasks in hyper_parameters, but 4 heads"),
    "task mean": (_set(*TASK, "node_energy_reduction", to="mean"), "not 'sum'"),
    "scale zero": (_set(*TASK, "normalization", "y", "std", to=0.0), "normalization.y.std = 0.0"),
    "force mean": (_set(*TASK, "normalization", "force", "mean", to=0.1), "force.mean = 0.1"),
    "property head": (
        _set(
            "state_dict", "graph_outputs._module_dict.ft_mlp_gap.out_mlp.0.weight", to=torch.ones(1)
        ),
        "property head (graph_outputs._module_dict.ft_mlp_gap",
    ),
    "hostile callback": (_set("callbacks", to=Run()), "refers to posix.system"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_gives_one_clear_error(
    name: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = BROKEN[name]
    content = copy.deepcopy(checkpoint())
    change(content)
    with pytest.raises(CheckpointError, match=r"model\.pt") as caught:
        read_official(save(content))
    assert message in str(caught.value)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("lost", ["cutoff", "max_neighbors"])
def test_missing_graph_settings_follow_from_an_rmd17_molecule_or_not_at_all(
    save: Save, lost: str
) -> None:
    content = checkpoint("finetune")
    del content["hyper_parameters"][lost]
    assert read_official(save(content), "raw").heads[0].graph == GraphPolicy.official(7.0, 100)
    content["hyper_parameters"]["molecule"] = "stachyose"
    with pytest.raises(CheckpointError, match="graphs the model was trained with are not known"):
        read_official(save(content), "raw")


@pytest.mark.parametrize("file", ["tiny-pretrain", "tiny-rmd17"])
def test_the_reference_checkpoints_are_read_in_full(shared: Path, file: str) -> None:
    path = shared / "reference" / f"{file}.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = read_official(path)
    expected = torch.load(path, weights_only=True)
    state = expected["state_dict"]
    assert read.state.keys() == state.keys()
    trained = [name for name in state if is_averaged(name)]
    states = expected.get("optimizer_states")
    averages = states[0]["ema"] if states else [state[name] for name in trained]
    for name, average in zip(trained, averages, strict=True):
        assert torch.equal(read.state[name], average), name

    header, tensors = to_native(read, file)
    backbone = {k.removeprefix("backbone."): v for k, v in tensors.items() if "backbone." in k}
    GemNetOC(read.config).load_state_dict(backbone, strict=True)
    assert sum(name.startswith("heads.") for name in tensors) == (18 * 4 if states else 5)
    assert header.heads[0].energy_scale == (24.901469505465872 if states else 1.2733363)
    assert header.heads[0].energy_mean == (0.0 if states else -17617.379355234374)


@pytest.mark.parametrize("size", ["jmp-s", "jmp-l"])
def test_all_names_of_the_released_sizes_are_used(shared: Path, size: str) -> None:
    state: dict[str, Tensor] = {}
    for line in (shared / "reference" / f"{size}-state-dict.tsv").read_text().splitlines():
        name, shape = line.split("\t")
        numbers = [] if shape == "scalar" else [int(n) for n in shape.split("x")]
        state[name] = torch.zeros(()).expand(numbers)
    config = preset(size, direct_forces=True)
    heads = tuple(HeadInfo(task, GraphPolicy.official(8.0, 30)) for task in PRETRAINING)
    _, tensors = to_native(OfficialCheckpoint(config, state, "pretrain", "raw", heads), size)

    with torch.device("meta"):
        network = GemNetOC(config)
    shapes = {f"backbone.{k}": v.shape for k, v in network.state_dict().items()}
    shapes["embedding.weight"] = torch.Size([120, config.emb_size_atom])
    widths = {"energy": config.emb_size_atom, "forces": config.emb_size_edge}
    for head in heads:
        for branch, n in widths.items():
            layers = f"heads.{head.name}.{branch}.layers"
            shapes |= {f"{layers}.{i}.weight": torch.Size([n, n]) for i in (0, 2, 4, 6)}
            shapes |= {f"{layers}.{i}.bias": torch.Size([n]) for i in (0, 2, 4, 6)}
            shapes[f"{layers}.8.weight"] = torch.Size([1, n])
    assert {name: value.shape for name, value in tensors.items()} == shapes
