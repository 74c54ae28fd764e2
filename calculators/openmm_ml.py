"""Entry for the package openmmml: ``MLPotential("jmp-xs-rmd17-ethanol").createSystem(topology)``.

openmmml imports this module as soon as it is imported itself, so that nothing heavy may be here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from openmmml.mlpotential import MLPotential, MLPotentialImpl, MLPotentialImplFactory

from jmp_md.errors import InputError
from jmp_md.models.catalogue import KNOWN

if TYPE_CHECKING:
    import openmm
    from openmm import app


class JMPFactory(MLPotentialImplFactory):
    """Makes potentials by the names of the models, or by ``"jmp"`` and ``model=``."""

    def createImpl(self, name: str, **args: Any) -> JMPImpl:  # noqa: N802
        """The potential of a name.

        Args:
            name: Name of a model, or ``"jmp"``.
            args: ``model`` with ``"jmp"``, name or file of any model; others are options of
                :func:`jmp_md.calculators.openmm.jmp_force`.

        Raises:
            InputError: ``"jmp"`` without a model.
        """
        model = args.pop("model", None)
        if name == "jmp" and model is None:
            raise InputError('MLPotential("jmp") needs model=, the name or file of a model')
        return JMPImpl(model if name == "jmp" else name, args)


class JMPImpl(MLPotentialImpl):
    """A JMP model for openmmml."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        self.model = model
        self.options = options

    def addForces(  # noqa: N802
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        """Add the force; options given to ``createSystem`` come before those of the potential."""
        from jmp_md.calculators.openmm import add_jmp_force, jmp_force

        options = {"force_group": forceGroup, **self.options, **args}
        chosen: Sequence[int] | None = None if atoms is None else list(atoms)
        if system.getNumParticles() == 0:  # where openmmml collects forces to scale
            system.addForce(jmp_force(self.model, topology, atoms=chosen, **options))
            return
        add_jmp_force(system, topology, self.model, atoms=chosen, **options)

    def getSupportedEmbeddings(self) -> list[str]:  # noqa: N802
        """Embeddings that are made here and not by openmmml.

        Its own interpolation takes non-bonded energies within the subset as those without cutoff.
        """
        return ["mechanical"]

    def createMixedSystem(  # noqa: N802
        self,
        topology: app.Topology,
        system: openmm.System,
        atoms: list[int],
        forceGroup: int,
        interpolate: bool,
        embedding: str,
        returnInfo: bool = False,
        **args: Any,
    ) -> openmm.System:
        """As ``create_mixed_system`` here; openmmml removes the constraints afterwards."""
        from jmp_md.calculators.openmm import create_mixed_system

        options = {"force_group": forceGroup, **self.options, **args}
        return create_mixed_system(
            topology,
            system,
            self.model,
            atoms,
            interpolate=interpolate,
            remove_constraints=False,
            **options,
        )

    def getMLLongRange(self) -> bool:  # noqa: N802
        """Whether the potential reaches beyond a cutoff: it does not."""
        return False


# The one entry point of this package stands for all names.
for _name in KNOWN:
    MLPotential.registerImplFactory(_name, JMPFactory())
