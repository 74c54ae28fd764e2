"""The sections of recipes, with every default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jmp_md.training.config import (
    AnyNumber,
    BelowOne,
    Count,
    CountOrNone,
    Files,
    NotNegative,
    Number,
    Positive,
    Section,
    Seed,
    Share,
    Size,
)

Tags = Literal["oc"] | None


class ModelSection(Section):
    """What is trained.

    Attributes:
        name: Name the finished model goes by.
        preset: Sizes of a new network, see :func:`jmp_md.nn.config.preset`.
        sizes: Sizes that differ from the preset.
        base: Checkpoint to start from (name or path) in place of a new network; its averaged
            weights are taken, and its sizes.
        graph: Options of :meth:`GraphPolicy.smooth`, or of the official graph: ``{kind: official,
            cutoff: 7.0, max_neighbors: 100}``. Empty for those of the base, or the smooth ones of
            a new network.
        forces: ``conservative``, the gradient of the energy, or ``direct``, a head of their own.
        head: Name of the head; of several that are trained together, the one that is taken where
            none is named.
        keep_head: Head of the base to go on from. By default the one whose level of theory and
            elements are those of the data, if there is one; false draws a new head, true keeps
            the only one of the base. A head that is kept brings its references and its repulsion.
            Pre-training keeps those of the same name, level and elements, unless it is false.
        references: eV by symbol, such as energies of isolated atoms: what the energies of elements
            stay near to where the compositions of the frames do not tell them apart. Empty for
            those of the head that is kept, or the proportions of atoms in the Thomas-Fermi model.
        freeze: First interaction blocks of the base that are not trained, with what feeds them:
            embedding of the elements, bases, output blocks. All blocks leave the heads.
        lora: Rank of updates of the dense layers of the blocks, which are trained in place of
            embedding and backbone (LoRA); they become part of the weights that are written.
        repulsion: Where the repulsion of nuclei ends, as a share of the sum of covalent radii; null
            for none, as the paper has it. Not with direct forces.
        molecule: Put for ``{molecule}`` wherever the recipe says so; ``{base}`` stands for the
            name of the base, or of the preset where there is none.
        level_of_theory: Of the labels.
        data: Data set and licence, in words.
        licence: Licence of the weights; that of the base where it forbids commercial use.
    """

    name: str
    preset: str = "jmp-xs"
    sizes: dict[str, Any] = Field(default_factory=dict)
    base: str | None = None
    graph: dict[str, Any] = Field(default_factory=dict)
    forces: Literal["conservative", "direct"] = "conservative"
    head: str = "energy"
    keep_head: bool | str | None = None
    references: dict[str, Number] = Field(default_factory=dict)
    freeze: CountOrNone = 0
    lora: Count | None = None
    repulsion: float | None = 0.9
    molecule: str | None = None
    level_of_theory: str = "unknown"
    data: str = "unknown"
    licence: str = "unknown"


class DataSection(Section):
    """Where frames come from; file names are relative to ``--data``.

    Attributes:
        train: File, or several, that training and validation frames are drawn from; also those to
            test on where there is no ``test``.
        validation: File or files of validation frames, in place of drawing them from ``train``.
        test: File or files of test frames.
        format: Name of the files' format, where it is not recognised.
        options: Of the format, e.g. ``{subset: dipeptides}`` for SPICE.
        tags: ``oc`` where the tags of the files are OC20's; null gives all atoms the tag 2, with a
            warning where they have others.
        split: ``frames`` and ``systems`` share out shuffled frames or whole systems by the three
            numbers below, ``matbench`` takes a fold of MatBench; else the name of a split of the
            paper, e.g. ``qm9``. ``stretches`` shares out runs of consecutive frames, for
            trajectories, whose neighbours are nearly the same.
        n_train: Training frames: a whole number of them, a share of all where it has a point (1.0
            is all, 1 is one), what the others leave where null.
        n_validation: Validation frames, likewise.
        n_test: Test frames of ``train``, likewise; null is what training and validation leave.
        max_test: Frames to test the finished model on, drawn with ``split_seed`` where there are
            more; null for all.
        fold: Of MatBench, 0 to 4.
        split_seed: Seed of the shuffle (the paper's runs use 42).
        weights: Name of a number that every frame has (one of the option ``targets`` of files that
            ASE reads), with which its terms of the loss are multiplied.
        max_force: eV/Å; frames with a force above it are left out.
        isolated_atoms: Whether frames of a lone atom are taken, too.
        single_molecule: Whether all frames are one molecule, which then is the model's domain.
    """

    train: Files
    validation: Files | None = None
    test: Files | None = None
    format: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    tags: Tags = None
    split: str = "frames"
    n_train: Size = 950
    n_validation: Size = 50
    n_test: Size = None
    max_test: Count | None = 1000
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    split_seed: Seed = 42
    weights: str | None = None
    max_force: Positive | None = None
    isolated_atoms: bool = True
    single_molecule: bool = False


class LayerFactors(Section):
    """Shares of the learning rate, during warm-up and cosine, of the parts of the network.

    Attributes:
        embedding: Of the embedding of the elements.
        blocks: Of each interaction block and the output block after it; empty for 1.
        paper: Take the paper's in place of these, for networks of 4 (JMP-S) or 6 blocks (JMP-L).
    """

    embedding: NotNegative = 1.0
    blocks: tuple[NotNegative, ...] = Field(default=(), strict=False)
    paper: bool = False


class OptimiserSection(Section):
    """AdamW, a warm-up and a cosine, gradient clipping and averaged weights.

    Attributes:
        learning_rate: Highest rate.
        betas: Of AdamW.
        weight_decay: Of AdamW.
        batch_size: Structures per step, of all processes together.
        epochs: Passes over the training frames, at most.
        warmup_epochs: Epochs from ``warmup_factor`` to the full rate.
        warmup_steps: Steps, in place of epochs.
        warmup_factor: Share of the rate at the first step.
        cosine_epochs: Epoch at which the cosine ends; by default the last; 0 for no cosine.
        final_factor: Share of the rate at the end of the cosine.
        plateau_patience: After the cosine, epochs without improvement before the rate is
            lowered; null keeps it.
        plateau_factor: What it is then multiplied with.
        patience: Epochs without improvement before the run stops; null goes on.
        min_learning_rate: The run stops when the rate falls below.
        layer_factors: Lower rates for the parts of a network that was trained before.
        clip_norm: Largest norm of the gradient; null for no limit.
        clip_value: Largest component of the gradient; null for no limit.
        ema_decay: Decay per step of the averaged weights, which validation and the model use.
        edge_dropout: Probability with which training leaves out a pair of atoms.
        dropout: Probability with which training zeroes a feature that atoms receive from their
            edges, in each block.
        precision: ``bf16`` and ``fp16`` compute the blocks, not geometry, bases and heads, in 16
            bits; ``fp16`` scales gradients so that they do not vanish.
        recompute: Compute blocks again in the backward pass: a third more time, far less memory.
        derivatives: ``auto`` takes what forces add to the gradient from differences of kernels
            where there are some (a processor, jmp-xs, smooth graphs, no dropout, float32): two to
            three times as fast, right to some 1e-4 of it; ``exact`` differentiates twice.
        sorted_steps: Steps whose structures are sorted by size and cut into batches again, which
            then pad less; 1 takes structures as they are drawn.
        validate_every: Steps between validations, where not once per epoch.
        max_skipped: Batches whose loss or gradient may fail to be finite; the next one stops.
    """

    learning_rate: NotNegative = 1e-3
    betas: tuple[BelowOne, BelowOne] = Field(default=(0.9, 0.95), strict=False)
    weight_decay: NotNegative = 0.01
    batch_size: Count = 4
    epochs: Count = 200
    warmup_epochs: NotNegative = 1.0
    warmup_steps: CountOrNone | None = None
    warmup_factor: Share = 0.1
    cosine_epochs: NotNegative | None = None
    final_factor: Share = 0.01
    plateau_patience: CountOrNone | None = None
    plateau_factor: BelowOne = 0.1
    patience: Count | None = None
    min_learning_rate: NotNegative = 0.0
    layer_factors: LayerFactors = Field(default_factory=LayerFactors)
    clip_norm: Positive | None = 10.0
    clip_value: Positive | None = None
    ema_decay: BelowOne = 0.99
    edge_dropout: BelowOne = 0.0
    dropout: BelowOne = 0.0
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    recompute: bool = False
    derivatives: Literal["auto", "exact"] = "auto"
    sorted_steps: Count = 1
    validate_every: Count | None = None
    max_skipped: CountOrNone = 100


class LossSection(Section):
    """Weights of the terms of the loss, each a mean over what has the label.

    Attributes:
        energy: Of the absolute error of the energy of a structure.
        forces: Of the length of the force error of an atom.
        stress: Of the absolute error of the components of the stress, in eV/Å³, so that weights
            around 100 are usual.
    """

    energy: NotNegative = 0.0
    forces: NotNegative = 1.0
    stress: NotNegative = 0.0

    @model_validator(mode="after")
    def _has_a_term(self) -> LossSection:
        if not (self.energy or self.forces or self.stress):
            raise ValueError("all weights are zero, there is nothing to train on")
        return self


class ReplaySection(Section):
    """A head of the base that goes on learning beside the new one, so that it is not forgotten.

    It keeps its references, and its energies are trained even where ``loss.energy`` is 0: they
    would drift. The model then has both heads, that of ``model.head`` as default, and is not taken
    to be of one molecule only.

    Attributes:
        data: File of frames of the base's own kind; null for structures of ``data.train``. Frames
            without energies and forces, and those of ``data.train``, are labelled by the base
            itself before the first step.
        format, options, tags: As for ``data``.
        head: Head of the base; null for its default or only one.
        share: Of each batch.
        n: Frames to draw with the recipe's seed, at most; a tenth of them validates.
    """

    data: str | None = None
    format: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    tags: Tags = None
    head: str | None = None
    share: Annotated[Number, Field(gt=0, lt=1)] = 0.5
    n: Annotated[int, Field(ge=2)] = 1000


class TargetSection(Section):
    """A property of whole structures.

    Attributes:
        name: Name of the target in the data set.
        kind: ``scalar``; ``extent``, the sum of atomic outputs times squared distances from the
            centre of mass (QM9's r2); or ``classes``, 0 or 1.
        pooling: How atomic outputs become one.
        references: Take a value per element, fitted to the training frames, off the target, in
            place of its mean: for what adds up over atoms, not for classes.
        dropout: Of the head, while training.
    """

    name: str
    kind: Literal["scalar", "extent", "classes"] = "scalar"
    pooling: Literal["sum", "mean", "max"] = "mean"
    references: bool = False
    dropout: BelowOne = 0.0


class TaskSection(Section):
    """One data set of a pre-training mix.

    Attributes:
        train: File or folder, relative to ``--data``.
        format, options, tags: As for a single data set.
        validation: File to validate on; by default a tenth of the systems of ``train``.
        reference: File ``jmp-md data reference --json`` wrote, in place of fitting references
            and scales at the start of the run.
        graph: Graphs of this task, where they are not the model's.
        force_weight: Weight of the force term; by default the mean number of atoms.
        max_force: eV/Å; frames with a force above it are left out.
        energy_margin: eV; errors of energies below it count as none (threshold loss).
        force_margin: eV/Å; likewise for an atom, the mean over its components.
        level_of_theory: Of the labels.
    """

    train: str
    format: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    tags: Tags = None
    validation: str | None = None
    reference: str | None = None
    graph: dict[str, Any] | None = None
    force_weight: NotNegative | None = None
    max_force: Positive | None = None
    energy_margin: NotNegative = 0.0
    force_margin: NotNegative = 0.0
    level_of_theory: str = "unknown"


class MixSection(Section):
    """How the data sets of a mix are sampled and weighed.

    Attributes:
        temperature: T of p_i ~ n_i^(1/T): 1 takes frames as they are, ``.inf`` sets alike.
        structure_wise: Whether the force loss is a mean over structures of means over atoms, or
            one mean over all atoms.
        n_validation: Frames of each task to validate on, at most.
        pcgrad: Take from each task's gradient what opposes another task's (PCGrad).
    """

    temperature: Annotated[AnyNumber, Field(gt=0)] = 2.0
    structure_wise: bool = True
    n_validation: Count = 500
    pcgrad: bool = False
