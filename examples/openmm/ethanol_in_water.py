"""Ethanol by a JMP model in TIP3P water by a force field, at constant temperature and pressure."""

import argparse
import io

import openmm
from openmm import app, unit

from jmp_md.calculators.openmm import create_mixed_system

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="jmp-xs-rmd17-ethanol")
parser.add_argument("--backend", default="auto", choices=("auto", "python", "torch"))
parser.add_argument("--waters", type=int, default=300)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--trust", action="store_true", help="the model is an exported file of mine")
args = parser.parse_args()

# name, element, charge, sigma (nm), epsilon (kJ/mol) of OPLS-AA, position (nm). Only what ethanol
# and water feel of each other: everything within ethanol comes from the model.
ETHANOL = (
    ("C1", "C", -0.180, 0.350, 0.276144, (0.1168, -0.0400, 0.0000)),
    ("C2", "C", 0.145, 0.350, 0.276144, (0.0000, 0.0559, 0.0000)),
    ("O", "O", -0.683, 0.312, 0.711280, (-0.1190, -0.0228, 0.0000)),
    ("HO", "H", 0.418, 1.000, 0.000000, (-0.1946, 0.0378, 0.0000)),
    ("H1", "H", 0.060, 0.250, 0.125520, (0.0038, 0.1204, 0.0891)),
    ("H2", "H", 0.060, 0.250, 0.125520, (0.0038, 0.1204, -0.0891)),
    ("H3", "H", 0.060, 0.250, 0.125520, (0.2116, 0.0145, 0.0000)),
    ("H4", "H", 0.060, 0.250, 0.125520, (0.1129, -0.1037, 0.0886)),
    ("H5", "H", 0.060, 0.250, 0.125520, (0.1129, -0.1037, -0.0886)),
)
BONDS = ((0, 1), (1, 2), (2, 3), (1, 4), (1, 5), (0, 6), (0, 7), (0, 8))


def force_field() -> app.ForceField:
    """TIP3P, and ethanol without terms of its own."""
    types, atoms, charges = "", "", ""
    for name, element, charge, sigma, epsilon, _ in ETHANOL:
        mass = app.Element.getBySymbol(element).mass.value_in_unit(unit.dalton)
        types += f'<Type name="{name}" class="{name}" element="{element}" mass="{mass}"/>'
        atoms += f'<Atom name="{name}" type="{name}"/>'
        charges += f'<Atom type="{name}" charge="{charge}" sigma="{sigma}" epsilon="{epsilon}"/>'
    bonds = "".join(f'<Bond from="{i}" to="{j}"/>' for i, j in BONDS)
    xml = (
        f"<ForceField><AtomTypes>{types}</AtomTypes>"
        f'<Residues><Residue name="EOH">{atoms}{bonds}</Residue></Residues>'
        '<NonbondedForce coulomb14scale="0.8333333333333334" lj14scale="0.5">'
        f"{charges}</NonbondedForce></ForceField>"
    )
    return app.ForceField("amber14/tip3p.xml", io.StringIO(xml))


topology = app.Topology()
residue = topology.addResidue("EOH", topology.addChain())
made = [topology.addAtom(name, app.Element.getBySymbol(e), residue) for name, e, *_ in ETHANOL]
for i, j in BONDS:
    topology.addBond(made[i], made[j])
positions = [openmm.Vec3(*row[-1]) for row in ETHANOL] * unit.nanometer

field = force_field()
modeller = app.Modeller(topology, positions)
modeller.addSolvent(field, numAdded=args.waters)
cutoff = 0.45 * min(v[k] for k, v in enumerate(modeller.topology.getPeriodicBoxVectors()))
mm = field.createSystem(
    modeller.topology,
    nonbondedMethod=app.PME,
    nonbondedCutoff=min(cutoff, 0.9 * unit.nanometer),
    rigidWater=True,
)
solute = list(range(len(ETHANOL)))
system = create_mixed_system(
    modeller.topology, mm, args.model, solute, backend=args.backend, trust=args.trust
)
system.addForce(openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin))

integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.0005)
simulation = app.Simulation(modeller.topology, system, integrator)
simulation.context.setPositions(modeller.positions)
simulation.minimizeEnergy(maxIterations=20)
for _ in range(4):
    simulation.step(args.steps // 4)
    state = simulation.context.getState(energy=True, positions=True)
    place = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    longest = max(float(((place[i] - place[j]) ** 2).sum()) ** 0.5 for i, j in BONDS)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    volume = state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3)
    print(f"{energy:12.2f} kJ/mol  {volume:7.3f} nm^3  longest bond of ethanol {longest:.3f} Å")
