"""Predictions of property models for data sets, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from ase.symbols import Symbols
from torch_geometric.data import Batch, Data

from jmp_md.errors import InputError
from jmp_md.training.batches import to_data, to_structures
from jmp_md.training.data.frame import Dataset
from jmp_md.training.packing import packed
from jmp_md.training.property import PropertyModel


class Predictions(NamedTuple):
    """Predictions of a property for the frames of a data set.

    Attributes:
        frame: (n,) numbers of the frames.
        formula: Chemical formula of each.
        elements: Atomic numbers that occur in each.
        predicted: (n,) in the unit of the target; of classes the probability of class 1.
        label: (n,) likewise, NaN where the data set has none.
    """

    frame: np.ndarray
    formula: list[str]
    elements: list[frozenset[int]]
    predicted: np.ndarray
    label: np.ndarray


def predict_properties(
    model: PropertyModel,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    skip_bad: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Predictions:
    """Predict a property of every frame.

    Args:
        model: The model.
        dataset: Frames of any sizes, with or without labels.
        batch_size: Frames read at a time; fewer go together where they are large.
        skip_bad: Leave out frames that the model cannot evaluate.
        progress: Called with the number of frames done since the last call.

    Raises:
        InputError: A frame cannot be evaluated; its number is given.
    """
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: must be at least 1")
    model.eval()
    name, cutoff = model.target.name, model.head.graph.cutoff
    index, formula, elements, label, predicted = [], [], [], [], [np.empty(0)]
    for start in range(0, len(dataset), batch_size):
        items: list[Data] = []
        chosen = range(start, min(start + batch_size, len(dataset)))
        for k in chosen:
            frame = dataset[k]
            try:
                _check_elements(model, frame.numbers)
                items.append(to_data(frame, cutoff))
            except InputError as error:
                if skip_bad:
                    continue
                raise InputError(f"frame {k}: {error}") from error
            index.append(k)
            formula.append(str(Symbols(frame.numbers).formula.format("hill")))
            elements.append(frozenset(int(z) for z in frame.numbers))
            label.append(frame.targets.get(name, np.nan))
        for part in packed(model, items):
            batch = Batch.from_data_list(part)
            predicted.append(model.predict(to_structures(batch)).cpu().numpy())
        if progress:
            progress(len(chosen))
    values = np.concatenate(predicted)
    return Predictions(np.array(index, dtype=int), formula, elements, values, np.array(label))


def _check_elements(model: PropertyModel, numbers: np.ndarray) -> None:
    """Elements that were not trained have random embeddings."""
    known = model.head.elements
    unknown = sorted({int(z) for z in numbers} - set(known))
    if known and unknown:
        symbols = ", ".join(chemical_symbols[z] for z in unknown)
        raise InputError(
            f"model {model.header.name!r} was not trained on {symbols}: it knows "
            f"{', '.join(chemical_symbols[z] for z in known)}"
        )


def property_summary(kind: str, predicted: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Errors of the predictions that have a label.

    Args:
        kind: Of the target.
        predicted: (n,) predictions; of classes the probability of class 1.
        label: (n,), NaN where there is none.

    Returns:
        ``mae``, ``rmse`` and ``mae_of_median``, that of the best constant, in the unit of the
        target; of classes ``cross_entropy``, ``accuracy``, ``roc_auc`` and
        ``accuracy_of_larger_class``; only ``n_frames``, the number of labels, where that is 0.
    """
    known = ~np.isnan(label)
    found, wanted = predicted[known], label[known]
    result: dict[str, float] = {"n_frames": len(wanted)}
    if not len(wanted):
        return result
    if kind != "classes":
        error = found - wanted
        return result | {
            "mae": float(abs(error).mean()),
            "rmse": float((error**2).mean() ** 0.5),
            "mae_of_median": float(abs(wanted - np.median(wanted)).mean()),
        }
    likelihood = np.where(wanted == 1, found, 1 - found)
    return result | {
        "cross_entropy": float(-np.log(likelihood.clip(1e-12)).mean()),
        "accuracy": float(((found > 0.5) == (wanted == 1)).mean()),
        "roc_auc": roc_auc(found, wanted == 1),
        "accuracy_of_larger_class": float(max((wanted == 1).mean(), (wanted != 1).mean())),
    }


def summary_by_element(kind: str, predictions: Predictions) -> dict[str, dict[str, float]]:
    """Errors on the structures that contain an element, by its symbol."""
    result = {}
    for z in sorted(frozenset().union(*predictions.elements)):
        has = np.array([z in elements for elements in predictions.elements])
        found = property_summary(kind, predictions.predicted[has], predictions.label[has])
        if found["n_frames"]:
            result[chemical_symbols[z]] = found
    return result


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half.

    0.5 where there is only one class.
    """
    n_positive = int(positive.sum())
    n_pairs = n_positive * (len(score) - n_positive)
    if n_pairs == 0:
        return 0.5
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)
