"""What reports judge of errors against labels: which limits are passed, and why those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ase.units import GPa, kcal, mol

from jmp_md.simulate.verdict import Verdict

CHEMICAL = 1000 * kcal / mol  # meV: chemical accuracy
_SHARE = 0.1  # of the forces themselves
_ADDITIVE = 1e-3  # eV
_STRESS = 1.0  # GPa


def judge_errors(errors: Mapping[str, Any]) -> list[Verdict]:
    """Whether a potential is good for simulation, by its errors on labelled frames.

    Args:
        errors: What ``jmp-md evaluate`` reports of a potential.
    """
    return [
        *_judge_energies(errors),
        *_judge_forces(errors),
        *_judge_stress(errors),
        *_judge_frames(errors),
    ]


def judge_property(errors: Mapping[str, Any]) -> list[Verdict]:
    """Whether predictions of a property say more than the best constant does.

    Args:
        errors: What ``jmp-md evaluate`` reports of a property model.
    """
    subject = f"predictions of {errors['target']}"
    doubt = "the model says no more than one number for all structures would: do not use it here"
    if "accuracy" in errors:
        constant = errors["accuracy_of_larger_class"]
        verdict = Verdict(
            subject,
            errors["accuracy"] > constant,
            f"accuracy {errors['accuracy']:.3g}",
            f"more than {constant:.3g}",
            "the share of the larger class, which is what naming it always gives",
            doubt,
        )
    elif "mae" in errors:
        constant = errors["mae_of_median"]
        verdict = Verdict(
            subject,
            errors["mae"] < constant,
            f"mean error {errors['mae']:.4g}",
            f"less than {constant:.4g}",
            "mean distance of the labels from their median, the error of the best constant",
            doubt,
        )
    else:
        verdict = Verdict(subject, None, "no labels", "labels", "only they tell errors")
    return [verdict, *_judge_frames(errors)]


def _judge_energies(errors: Mapping[str, Any]) -> Iterator[Verdict]:
    if "energy_mae_meV" not in errors:
        yield Verdict("energies", None, "no labels", "labels", "only they tell errors")
        return
    whole, after = errors["energy_mae_meV"], errors["after_shift"]["energy_mae_meV"]
    alone = errors["labels"]["n_energies"] < 2
    yield Verdict(
        "relative energies",
        None if alone else after <= CHEMICAL,
        "one label only" if alone else f"mean error {after:.4g} meV, once the mean is taken off",
        f"at most {CHEMICAL:.0f} meV",
        "1 kcal/mol for a whole structure, chemical accuracy; structures of hundreds of atoms "
        "rarely pass, whose energies are compared per atom",
        "energies of structures do not compare: barriers, conformers and reactions may be wrong; "
        "fine-tune the model on data like these",
    )
    yield Verdict(
        "level of the energies",
        whole <= max(CHEMICAL, 2 * after),
        f"{errors['energy_shift_eV']:+.4g} eV from prediction to label",
        f"at most {CHEMICAL:.0f} meV, or what single energies are off by",
        "more is of another level of theory, or of other references of elements",
        "labels are of another level than the model's: only differences of its energies compare",
    )


def _judge_forces(errors: Mapping[str, Any]) -> Iterator[Verdict]:
    if "force_mae_meV_per_A" not in errors:
        yield Verdict("forces", None, "no labels", "labels", "only they tell errors")
        return
    mean = errors["force_mae_meV_per_A"]
    yield Verdict(
        "forces",
        mean <= CHEMICAL,
        f"mean error {mean:.4g} meV/Å",
        f"at most {CHEMICAL:.0f} meV/Å",
        "1 kcal/mol/Å, what is asked of forces for dynamics",
        "dynamics and geometries may be wrong: fine-tune the model on data like these",
    )
    size = errors["labels"]["force_rms_meV_per_A"] / 1000
    share = errors["force_rmse_meV_per_A"] / 1000 / size if size else float("nan")
    yield Verdict(
        "forces, beside their size",
        share <= _SHARE if size else None,
        f"{100 * share:.3g} % of {size:.3g} eV/Å" if size else "all labels are 0",
        f"at most {100 * _SHARE:g} %",
        "by root mean squares; where force constants are off by so much, frequencies are by half "
        "as much",
        "small forces are not told apart: geometries and frequencies may be wrong where frames "
        "are near a minimum",
    )


def _judge_stress(errors: Mapping[str, Any]) -> Iterator[Verdict]:
    if "stress_mae_meV_per_A3" in errors:
        mean = errors["stress_mae_meV_per_A3"] / 1000 / GPa
        yield Verdict(
            "stress",
            mean <= _STRESS,
            f"mean error {mean:.3g} GPa",
            f"at most {_STRESS:g} GPa",
            "moves a lattice constant by 0.3 % where the bulk modulus is 100 GPa",
            "cells relax to wrong sizes and shapes: fine-tune the model with stress",
        )


def _judge_frames(errors: Mapping[str, Any]) -> Iterator[Verdict]:
    if (off := errors.get("size_inconsistency_eV")) is not None:
        yield Verdict(
            "additivity",
            off <= _ADDITIVE,
            f"{off:.1e} eV",
            f"at most {_ADDITIVE:g} eV",
            "twice a structure has twice its energy; rounding in single precision is less",
            "energies are not extensive: structures of different sizes do not compare",
        )
    skipped = errors["n_skipped"]
    yield Verdict(
        "frames",
        skipped == 0,
        f"{skipped} left out",
        "none",
        "those that a model cannot compute are the hardest; errors are of the others",
        f"errors are too good: {skipped} frames could not be computed and are left out",
    )
