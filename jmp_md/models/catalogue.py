"""Names of models this project knows, whether at hand or not."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from importlib import resources

from jmp_md.header import OFFICIAL_LICENCE

_OFFICIAL_URL = "https://jmp-iclr-datasets.s3.amazonaws.com/{name}.pt"

_RMD17 = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
# As the data set writes them; names of models are in lower case.
_MD22 = (
    "Ac-Ala3-NHMe",
    "DHA",
    "stachyose",
    "AT-AT",
    "AT-AT-CG-CG",
    "buckyball-catcher",
    "double-walled-nanotube",
)
_MOLECULES = {
    **{f"rmd17-{m}": m for m in _RMD17},
    **{f"md22-{m.lower()}": m for m in _MD22},
}
# Data set of each fine-tuning task, and where its owners publish it.
_DATA = {
    **{f"rmd17-{m}": f"rMD17 {m} (doi.org/10.6084/m9.figshare.12672038)" for m in _RMD17},
    **{f"md22-{m.lower()}": f"MD22 {m} (sgdml.org, data sets)" for m in _MD22},
    "spice": "SPICE dipeptides and solvated amino acids (github.com/openmm/spice-dataset)",
}


@dataclass(frozen=True)
class KnownModel:
    """A name and how its model comes to be: downloaded from ``url``, or trained on ``data``.

    Attributes:
        name: Registry name.
        url: Official file; empty for models that are trained.
        sha256: Hash of the file at ``url``; empty where its owners publish none.
        size: Bytes at ``url``; None where not known.
        licence: Licence of the weights; empty for models that are trained.
        base: Name of the weights training starts from; empty where it starts from random ones.
        task: Data set and molecule, e.g. ``"rmd17-ethanol"``; empty for an official file.
        data: The data in words, with their source.
    """

    name: str
    url: str = ""
    sha256: str = ""
    size: int | None = None
    licence: str = ""
    base: str = ""
    task: str = ""
    data: str = ""


_OFFICIAL = [
    KnownModel(name, url=_OFFICIAL_URL.format(name=name), licence=OFFICIAL_LICENCE)
    for name in ("jmp-s", "jmp-l")
]
_SMALL = KnownModel(
    "jmp-xs", task="pretrain-demo", data="subsets of the sets JMP was pre-trained on"
)
_FINE_TUNED = [
    KnownModel(f"{base}-{task}", base=base, task=task, data=data)
    for base in ("jmp-xs", "jmp-s", "jmp-l")
    for task, data in _DATA.items()
]

_ORGANIC = KnownModel(
    "jmp-xs-organic",
    base="jmp-xs",
    task="organic",
    data="molecules of H, C, N, O, F, P, S, Cl and Br, labelled by AIMNet2, and ANI-1x",
)

KNOWN: dict[str, KnownModel] = {m.name: m for m in (*_OFFICIAL, _SMALL, _ORGANIC, *_FINE_TUNED)}


def how_to_get(model: KnownModel) -> str:
    """The steps, in words and commands, that put a model at hand."""
    add = f"run 'jmp-md models add {model.name} FILE'"
    if model.url:
        return f"download {model.url} yourself and {add}"
    base = f"the base weights {model.base}" if model.base else "random weights"
    if model.base and KNOWN[model.base].url:
        base += f" ('jmp-md models path {model.base}' downloads them)"
    command = training_command(model)
    if not command:
        return (
            f"it starts from {base} and is trained on {model.data}, for which this version has no "
            f"recipe; if you have the model file, {add}"
        )
    return (
        f"start from {base}, get {model.data}, and run '{command}'; with the file that gives, or "
        f"any you have, {add}"
    )


def training_command(model: KnownModel) -> str:
    """What trains a model with an installed recipe; empty where there is none.

    The most specific recipe is taken: the model's own, that of a small model's task, that of the
    data set for small models, then that for the large ones, which is told the base.
    """
    folder = resources.files("jmp_md.training") / "recipes"
    data_set = model.task.partition("-")[0]
    small = model.base in ("", _SMALL.name)
    general = f"{data_set}-xs" if small else data_set
    for stem in (model.name, model.task if small else "", general, data_set):
        if stem and (folder / f"{stem}.yaml").is_file():
            break
    else:
        return ""
    words = [f"jmp-md train {stem}"]
    if stem == data_set and model.base:
        words.append(f"--set model.base={model.base}")
    if stem in (general, data_set) and model.task in _MOLECULES:
        words.append(f"--set model.molecule={_MOLECULES[model.task]}")
    if stem == data_set and model.base and small:
        # Its graphs are its own, and the paper's factors are not for its size.
        words.append("--set model.graph={} --set optimiser.layer_factors={}")
    return " ".join([*words, "--data DIR"])


@functools.cache  # once per process
def _notify() -> None:
    logging.getLogger("jmp_md").warning(
        "The official JMP weights, and models fine-tuned from them, are licensed %s: "
        "non-commercial use only, with attribution (arXiv:2310.16802).",
        OFFICIAL_LICENCE,
    )


def non_commercial(licence: str) -> bool:
    """Whether a licence, e.g. ``"CC-BY-NC-4.0"`` or ``"CC BY-NC 4.0"``, forbids commercial use."""
    return "NC" in licence.upper().replace("-", " ").split()


def notify_licence(licence: str) -> None:
    """Say once per process, through logging, that non-commercial weights are in use."""
    if non_commercial(licence):
        _notify()
