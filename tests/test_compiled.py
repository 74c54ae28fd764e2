"""Compiled networks compute what eager mode does, or give way to it with one warning."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from factories import random_potential, write_model
from torch import Tensor

import jmp_md.aoti
import jmp_md.compiled
from jmp_md import CheckpointError, InputError, JMPCalculator
from jmp_md.aoti import Code, network_step
from jmp_md.check import Subject, machine_code
from jmp_md.checkpoints.packaged import read_package_info
from jmp_md.cli.main import main
from jmp_md.compiled import CompiledStep, _key, _load_or_compile
from jmp_md.evaluation import evaluate
from jmp_md.export import export
from jmp_md.graph.policy import GraphPolicy
from jmp_md.load import load_model
from jmp_md.nn.fold import FoldedNetwork
from jmp_md.potential import Potential

# The least that has every part: compiling takes time by the number of operations.
LEAST: dict[str, int] = {
    "num_blocks": 1,
    "num_spherical": 2,
    "num_before_skip": 0,
    "num_after_skip": 0,
    "num_concat": 0,
    "num_atom": 0,
    "num_output_afteratom": 0,
    "num_atom_emb_layers": 0,
    "num_global_out_layers": 0,
}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Compiled code of its own for every test."""
    monkeypatch.setenv("JMP_MD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def in_python(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces compiled code by the step it is made from, changed as a test likes."""

    def use(change: Callable[[tuple[Tensor, ...]], Sequence[Tensor]] = tuple) -> None:
        made: dict[Path, Code] = {}

        def compile_step(
            network: FoldedNetwork,
            policy: GraphPolicy,
            gradient: bool,
            path: Path,
            *,
            with_weights: bool,
        ) -> None:
            n_weights = 0 if with_weights else len(jmp_md.aoti.weights(network))
            step = network_step(network, policy, gradient)
            made[Path()] = lambda *given: change(tuple(step(*given[n_weights:])))
            path.write_bytes(b"code")

        monkeypatch.setattr(jmp_md.compiled, "compile_step", compile_step)
        monkeypatch.setattr(jmp_md.compiled, "load_code", lambda path, device: made[Path()])

    monkeypatch.setattr(jmp_md.compiled, "_SLOWER", 10.0)  # the same code, on a busy machine
    return use


def small(**options: Any) -> Potential:
    return random_potential(num_blocks=1, **options)


def compiled(potential: Potential) -> Potential:
    """A copy that compiles."""
    return load_model(potential, dtype=torch.float64, device="cpu", memory="fast", compile=True)


def key(potential: Potential, gradient: bool = True) -> str:
    return _key(potential.fold(), potential, gradient)


def crystal() -> Atoms:
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.05, seed=0)
    return silicon


def assert_same(a: Potential, b: Potential, structures: list[Atoms], **options: Any) -> None:
    properties = options.pop("properties", ("energy", "forces", "stress"))
    for x, y in zip(
        evaluate(structures, a, properties=properties, **options),
        evaluate(structures, b, properties=properties, **options),
        strict=True,
    ):
        np.testing.assert_allclose(x.energies, y.energies, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(x.forces, y.forces, rtol=1e-9, atol=1e-10)
        assert (x.stress is None) == (y.stress is None)
        if x.stress is not None:
            np.testing.assert_allclose(x.stress, y.stress, rtol=1e-9, atol=1e-12)


def test_code_for_another_number_of_threads_is_other_code(
    in_python: Callable[..., None], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_python()
    atoms = molecule("CH3OH")
    atoms.calc = JMPCalculator(small(), dtype="float64", device="cpu", compile=True)
    for threads in (1, 2, 1):  # as in a process forked from one that used more
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        atoms.rattle(0.01, seed=threads)
        atoms.get_forces()
    assert len(list(home.glob("compiled/*.pt2"))) == 2


@pytest.mark.parametrize("smooth", [True, False])
def test_gradients_go_on_from_the_graph_to_forces_and_stress(
    in_python: Callable[..., None], smooth: bool
) -> None:
    in_python()
    potential = small(smooth=smooth)
    fast = compiled(potential)
    assert_same(fast, potential, [molecule("CH3CH2OH"), crystal(), molecule("C6H6")])
    assert isinstance(fast.step, CompiledStep)
    assert fast.step.seconds > 0
    assert not fast.step.failure


def test_slower_code_is_told_once_and_used(
    in_python: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_python()
    taken = iter([0.13, 0.1])  # compiled code, eager mode
    monkeypatch.setattr(jmp_md.compiled, "_SLOWER", 1.15)
    monkeypatch.setattr(jmp_md.compiled, "_seconds", lambda step, inputs: next(taken))
    fast = compiled(small())
    with pytest.warns(
        UserWarning, match=r"takes 130\.0 ms .* eager mode 100\.0 ms: leave out"
    ) as told:
        (first,) = evaluate([molecule("CH3CH2OH")], fast)
    assert len(told) == 1
    assert isinstance(fast.step, CompiledStep)
    assert not fast.step.failure
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (second,) = evaluate([molecule("CH3CH2OH")], fast)
    assert first.energy == second.energy


def test_direct_forces_come_from_compiled_code(in_python: Callable[..., None]) -> None:
    in_python()
    potential = small(direct=True)
    fast = compiled(potential)
    assert_same(fast, potential, [molecule("CH3CH2OH")], properties=("forces",), forces="direct")
    assert isinstance(fast.step, CompiledStep)
    assert fast.step.seconds > 0


def test_wrong_results_are_given_up_with_one_warning(in_python: Callable[..., None]) -> None:
    in_python(lambda outputs: [*outputs[:-3], 1.001 * outputs[-3], *outputs[-2:]])
    potential = small()
    fast = compiled(potential)
    with pytest.warns(UserWarning, match=r"'random' runs in eager mode.* differ"):
        assert_same(fast, potential, [molecule("CH3CH2OH")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(fast, potential, [molecule("C6H6")])


def test_values_that_are_no_numbers_are_wrong(in_python: Callable[..., None]) -> None:
    in_python(lambda outputs: [x * float("nan") for x in outputs])
    potential = small()
    with pytest.warns(UserWarning, match="eager mode"):
        assert_same(compiled(potential), potential, [molecule("CH3CH2OH")])


def test_without_a_compiler_the_warning_says_what_to_install() -> None:
    from torch._inductor import config

    potential = small()
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.warns(UserWarning, match=r"install g\+\+"),
    ):
        assert_same(compiled(potential), potential, [molecule("CH3CH2OH")])


def test_the_smallest_structures_run_in_eager_mode(in_python: Callable[..., None]) -> None:
    in_python()
    potential = small()
    fast = compiled(potential)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(fast, potential, [Atoms("H"), Atoms("H2", [[0, 0, 0], [0, 0, 0.8]])])
    assert isinstance(fast.step, CompiledStep)
    assert fast.step.seconds == 0


def test_lean_memory_is_not_compiled(in_python: Callable[..., None]) -> None:
    in_python()
    potential = small()
    fast = compiled(potential)
    fast.memory = "lean"
    assert_same(fast, potential, [molecule("CH3CH2OH")])
    assert isinstance(fast.step, CompiledStep)
    assert fast.step.seconds == 0


def test_models_that_differ_in_weights_share_code() -> None:
    first = small()
    second = small()
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(0.9)
    assert key(first) == key(second)
    others = [small().float(), small(smooth=False), random_potential(num_blocks=2)]
    assert len({key(p) for p in [first, *others]} | {key(first, gradient=False)}) == 5


def test_a_copy_loads_its_code_again(in_python: Callable[..., None]) -> None:
    in_python()
    fast = compiled(small())
    evaluate([molecule("CH3CH2OH")], fast)
    copy = pickle.loads(pickle.dumps(fast))
    assert_same(copy, fast, [molecule("CH3CH2OH")])


def test_warmup_leaves_nothing_to_the_first_step(in_python: Callable[..., None]) -> None:
    in_python()
    calculator = JMPCalculator(small(), dtype="float64", device="cpu", compile=True)
    ethanol = molecule("CH3CH2OH")
    assert calculator.warmup(ethanol) > 0
    before = calculator.potential.step
    assert isinstance(before, CompiledStep)
    seconds = before.seconds
    ethanol.calc = calculator
    ethanol.get_forces()
    assert before.seconds == seconds > 0


def test_the_command_line_compiles_before_it_starts(
    in_python: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_python()
    model = write_model(tmp_path, num_blocks=1)
    molecule("CH3CH2OH").write(tmp_path / "ethanol.xyz")
    arguments = ["singlepoint", str(tmp_path / "ethanol.xyz"), "--model", str(model), "--compile"]
    assert main([*arguments, "--dtype", "float64", "--device", "cpu"]) == 0
    assert "ready after" in capsys.readouterr().err


def test_the_check_compares_only_when_asked(in_python: Callable[..., None]) -> None:
    in_python()
    subject = Subject(molecule("CH3CH2OH"), small(), "float64", 0, 10)
    assert machine_code(subject).measured is None
    outcome = machine_code(Subject(subject.atoms, subject.potential, "float64", 0, 10, True))
    assert outcome.measured is not None
    assert outcome.passed


def test_packages_are_loaded_only_when_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="trust=True"):
        JMPCalculator(path)
    with pytest.raises(CheckpointError, match=r"model\.pt2"):
        JMPCalculator(path, trust=True, device="cpu")


def test_packages_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    potential = small()
    with pytest.raises(InputError, match=r"ends in \.pt2"):
        export(potential, tmp_path / "model.pt", format="aoti")
    with pytest.raises(InputError, match="OpenMM"):
        export(potential, tmp_path / "model.pt2", format="aoti", numbers=[1, 8, 1])
    assert not list(tmp_path.glob("model*"))


@pytest.mark.slow  # a compilation
@needs_compiler
def test_one_compilation_serves_all_sizes_and_later_processes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential = random_potential(**LEAST)
    fast = compiled(potential)
    apart = molecule("CH3CH2OH")
    apart.positions *= 1.7
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".* runs in eager mode")
        assert_same(fast, potential, [molecule("CH3CH2OH"), apart, crystal(), molecule("C6H6")])
        assert_same(fast, potential, [molecule("C6H6"), molecule("CH4")] * 3)
    assert isinstance(fast.step, CompiledStep)
    assert len(list((home / "compiled").iterdir())) == 1

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(jmp_md.compiled, "compile_step", refuse)
    with torch.no_grad():
        for weight in potential.parameters():
            weight.mul_(0.9)  # other weights, the same code
    again = compiled(potential)
    assert_same(again, potential, [molecule("CH3CH2OH")])
    assert isinstance(again.step, CompiledStep)
    assert again.step.seconds > 0
    assert not again.step.failure


@pytest.mark.slow  # a compilation
@needs_compiler
def test_a_package_is_a_model(tmp_path: Path) -> None:
    potential = random_potential(direct=True, **LEAST)
    path = tmp_path / "model.pt2"
    info = export(potential, path, format="aoti", dtype="float64")
    package = load_model(path, dtype=torch.float64, device="cpu", trust=True)
    assert package.header.name == info.header.name == "random"
    assert_same(
        package,
        potential,
        [molecule("CH3CH2OH"), crystal()],
        properties=("forces",),
        forces="direct",
    )
    ethanol = molecule("CH3CH2OH")
    ethanol.calc = JMPCalculator(path, forces="direct", dtype="float64", device="cpu", trust=True)
    assert np.isfinite(ethanol.get_forces()).all()
    with pytest.raises(InputError, match="direct forces only"):
        evaluate([ethanol], package)
    with pytest.raises(InputError, match="neighbours"):
        evaluate([Atoms("H")], package, properties=("forces",), forces="direct")


def test_compiled_networks_are_made_for_one_potential(in_python: Callable[..., None]) -> None:
    in_python()
    potential = small()
    assert potential.step is None
    assert isinstance(compiled(potential).step, CompiledStep)


def test_what_ran_before_does_not_change_the_code() -> None:
    potential = small()
    before = key(potential)
    evaluate([molecule("H2O")], potential)
    assert key(potential) == before


def test_too_little_memory_is_no_failure_of_the_compiler(in_python: Callable[..., None]) -> None:
    def short(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if len(outputs[0]) > 9:
            raise torch.OutOfMemoryError("out of memory")
        return outputs

    in_python(short)
    potential = compiled(small())
    batch = [molecule("CH3CH2OH"), molecule("CH3CH2OH")]
    evaluate(batch[:1], potential)
    results = evaluate(batch, potential)  # halves the batch
    assert isinstance(potential.step, CompiledStep)
    assert not potential.step.failure
    assert results[1].energy == pytest.approx(evaluate(batch[1:], small())[0].energy)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="has no modes of files")
@pytest.mark.parametrize(
    ("what", "mode", "message"),
    [
        ("compiled/k.pt2", 0o620, "others may write"),
        ("compiled/k.pt2", 0o602, "others may write"),
        ("compiled", 0o770, "others may write"),
        (".", 0o777, "anybody may replace"),
        ("compiled", None, "belongs to somebody else"),
        ("compiled/k.pt2", None, "belongs to somebody else"),
        ("compiled/k.pt2", 0o600, ""),
        (".", 0o1777, ""),
    ],
)
def test_code_that_others_could_have_written_is_not_loaded(
    what: str, mode: int | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "compiled").mkdir(mode=0o700, parents=True)
    (home / "compiled/k.pt2").touch(mode=0o600)
    monkeypatch.setenv("JMP_MD_HOME", str(home))
    monkeypatch.setattr("jmp_md.compiled._key", lambda *_: "k")
    loaded: list[Path] = []
    monkeypatch.setattr("jmp_md.compiled.load_code", lambda path, _: loaded.append(path))
    if mode is not None:
        (home / what).chmod(mode)
    else:
        stat, victim = Path.stat, home / what
        other = os.getuid() + 1
        monkeypatch.setattr(
            Path,
            "stat",
            lambda self, **options: (
                os.stat_result((*stat(self)[:4], other, *stat(self)[5:10]))
                if self == victim
                else stat(self, **options)
            ),
        )
    potential = random_potential(num_blocks=1)
    if message:
        with pytest.raises(PermissionError, match=message):
            _load_or_compile(potential.fold(), potential, True)
    else:
        _load_or_compile(potential.fold(), potential, True)
    assert len(loaded) == (not message)


def test_a_package_that_claims_much_metadata_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/metadata.json", bytes(100 * 2**20))
    with pytest.raises(CheckpointError, match="more than 16777216 bytes"):
        read_package_info(tmp_path / "m.pt2")
