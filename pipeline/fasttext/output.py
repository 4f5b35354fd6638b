"""From a document's vector to the probabilities of labels, as fastText's `predict` gives them.

Softmax and one-vs-all look at every label; a model trained by negative sampling answers like
one-vs-all. Hierarchical softmax walks a Huffman tree, which is not in the file but follows from how
often each label came in training:

    counts 5, 3, 2            node 4 (10): left 0, right 3        P(label 1) = P(right at 4)
                              node 3 (5):  left 2, right 1                     P(right at 3)

What belongs to the reference is kept: 1e-5 is added before each logarithm, so a probability may
reach 1.00001; the sigmoid of one-vs-all goes in 512 steps from -8 to 8; of equal labels the last
one wins; a branch of the tree below 1e-5 is not entered.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tokenmill.pipeline.fasttext.vocabulary import ABSENT
from tokenmill.tokenizer.compiled import compiled, compiled_inline


class Loss(IntEnum):
    """What a model was trained with, as its file numbers it."""

    HIERARCHICAL_SOFTMAX = 1
    NEGATIVE_SAMPLING = 2
    SOFTMAX = 3
    ONE_VS_ALL = 4


class Tree(NamedTuple):
    """A Huffman tree: labels are the first nodes, the root is the last."""

    children: NDArray[np.int32]
    """(nodes, 2) left and right, ABSENT for a label."""
    parents: NDArray[np.int32]
    """(nodes,) ABSENT for the root."""


@dataclass(frozen=True, slots=True)
class Output:
    """The half of a model that turns a vector into probabilities."""

    loss: Loss
    weights: NDArray[np.float32]
    """(labels, dim); in a tree, row i belongs to the i-th node that is not a label."""
    tree: Tree
    """Empty unless the loss is hierarchical."""

    def best(self, vectors: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """(documents,) the likeliest label of each document and (documents,) its probability.

        Args:
            vectors: (documents, dim); NaN where a document has none: its label is -1.
        """
        labels = np.full(len(vectors), ABSENT, np.int32)
        probabilities = np.zeros(len(vectors), np.float64)
        if self.loss is Loss.HIERARCHICAL_SOFTMAX:
            _best_in_tree(vectors, self.weights, self.tree, labels, probabilities)
        else:
            _best_of_all(vectors, self.weights, self.loss is Loss.SOFTMAX, labels, probabilities)
        return labels, probabilities

    def probabilities(
        self, vectors: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(documents, labels) the probability of each of these labels; 0 without a vector."""
        probabilities = np.zeros((len(vectors), len(labels)), np.float64)
        if self.loss is Loss.HIERARCHICAL_SOFTMAX:
            _some_in_tree(vectors, self.weights, self.tree, labels, probabilities)
        else:
            _some_of_all(vectors, self.weights, self.loss is Loss.SOFTMAX, labels, probabilities)
        return probabilities


NO_TREE = Tree(np.zeros((0, 2), np.int32), np.zeros(0, np.int32))


def huffman_tree(counts: NDArray[np.int64]) -> Tree:
    """The tree over labels that came so often, from the most to the least frequent.

    The two rarest nodes are joined again and again; a label goes before a joined node only where
    it is rarer, and the first of the two is the left one.
    """
    num_labels = len(counts)
    children = np.full((2 * num_labels - 1, 2), ABSENT, np.int32)
    parents = np.full(2 * num_labels - 1, ABSENT, np.int32)
    weights = [*counts.tolist(), *[10**15] * (num_labels - 1)]
    label, joined = num_labels - 1, num_labels  # the rarest of each kind that has no parent yet
    for node in range(num_labels, 2 * num_labels - 1):
        for side in range(2):
            if label >= 0 and weights[label] < weights[joined]:
                child, label = label, label - 1
            else:
                child, joined = joined, joined + 1
            children[node, side] = child
            parents[child] = node
        left, right = children[node]
        weights[node] = weights[left] + weights[right]
    return Tree(children, parents)


_ADDED = 1e-5
_SIGMOID_LIMIT, _SIGMOID_STEPS = np.float32(8), np.float32(32)
"""Its steps are 1/32 wide, between -8 and 8; single precision decides on which one a value is."""


@compiled
def _best_of_all(
    vectors: NDArray[np.float64],
    weights: NDArray[np.float32],
    softmax: bool,
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float64],
) -> None:
    scores = np.empty(len(weights), np.float64)
    for document in range(len(vectors)):
        if np.isnan(vectors[document, 0]):
            continue
        _score_all(scores, vectors[document], weights, softmax)
        for label in range(len(scores)):
            if scores[label] >= probabilities[document]:
                labels[document] = label
                probabilities[document] = scores[label]


@compiled
def _some_of_all(
    vectors: NDArray[np.float64],
    weights: NDArray[np.float32],
    softmax: bool,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> None:
    scores = np.empty(len(weights), np.float64)
    for document in range(len(vectors)):
        if not np.isnan(vectors[document, 0]):
            _score_all(scores, vectors[document], weights, softmax)
            for place in range(len(labels)):
                probabilities[document, place] = scores[labels[place]]


@compiled_inline
def _score_all(
    scores: NDArray[np.float64],
    vector: NDArray[np.float64],
    weights: NDArray[np.float32],
    softmax: bool,
) -> None:
    highest = -np.inf
    for label in range(len(scores)):
        scores[label] = _dot(weights, label, vector)
        highest = max(highest, scores[label])
    if softmax:
        total = 0.0
        for label in range(len(scores)):
            scores[label] = np.exp(scores[label] - highest)
            total += scores[label]
        for label in range(len(scores)):
            scores[label] = scores[label] / total + _ADDED
    else:
        for label in range(len(scores)):
            scores[label] = _sigmoid_in_steps(scores[label]) + _ADDED


@compiled_inline
def _sigmoid_in_steps(value: float) -> float:
    if value < -_SIGMOID_LIMIT:
        return 0.0
    if value > _SIGMOID_LIMIT:
        return 1.0
    step = np.int64((np.float32(value) + _SIGMOID_LIMIT) * _SIGMOID_STEPS)
    return float(1 / (1 + np.exp(_SIGMOID_LIMIT - step / _SIGMOID_STEPS)))


@compiled
def _best_in_tree(
    vectors: NDArray[np.float64],
    weights: NDArray[np.float32],
    tree: Tree,
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float64],
) -> None:
    """Down from the root, left before right, never into a branch that cannot win."""
    num_labels = len(weights)
    nodes = np.empty(num_labels + 1, np.int64)
    waiting_with = np.empty(num_labels + 1, np.float64)
    for document in range(len(vectors)):
        if np.isnan(vectors[document, 0]):
            continue
        best = _ADDED
        nodes[0] = len(tree.parents) - 1
        waiting_with[0] = 1.0
        num_waiting = 1
        while num_waiting:
            num_waiting -= 1
            node, probability = nodes[num_waiting], waiting_with[num_waiting]
            if probability < best:
                continue
            if node < num_labels:
                labels[document] = node
                probabilities[document] = best = probability
                continue
            goes_right = _goes_right(weights, node - num_labels, vectors[document])
            for side in (1, 0):
                nodes[num_waiting] = tree.children[node, side]
                share = goes_right if side else 1 - goes_right
                waiting_with[num_waiting] = probability * (share + _ADDED)
                num_waiting += 1


@compiled
def _some_in_tree(
    vectors: NDArray[np.float64],
    weights: NDArray[np.float32],
    tree: Tree,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
) -> None:
    """Up from each label to the root."""
    num_labels = len(weights)
    for document in range(len(vectors)):
        if np.isnan(vectors[document, 0]):
            continue
        for place in range(len(labels)):
            node = int(labels[place])
            probability = 1.0
            while tree.parents[node] != ABSENT:
                parent = int(tree.parents[node])
                goes_right = _goes_right(weights, parent - num_labels, vectors[document])
                is_right = tree.children[parent, 1] == node
                probability *= (goes_right if is_right else 1 - goes_right) + _ADDED
                node = parent
            if probability >= _ADDED:
                probabilities[document, place] = probability


@compiled_inline
def _goes_right(weights: NDArray[np.float32], row: int, vector: NDArray[np.float64]) -> float:
    return float(1 / (1 + np.exp(-_dot(weights, row, vector))))


@compiled_inline
def _dot(weights: NDArray[np.float32], row: int, vector: NDArray[np.float64]) -> float:
    """Four sums at a time: an addition waits for the one before it in the same sum."""
    a = b = c = d = 0.0
    dim = len(vector)
    for place in range(0, dim - 3, 4):
        a += weights[row, place] * vector[place]
        b += weights[row, place + 1] * vector[place + 1]
        c += weights[row, place + 2] * vector[place + 2]
        d += weights[row, place + 3] * vector[place + 3]
    for place in range(dim - dim % 4, dim):
        a += weights[row, place] * vector[place]
    return a + b + c + d
