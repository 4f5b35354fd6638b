"""What is refused as a model, and with which words."""

import struct
from pathlib import Path

import numpy as np
import pytest
from fasttext_models import LABELS, Recipe, model_bytes, write_model

from tokenmill.errors import RecipeError, SourceError
from tokenmill.pipeline.fasttext.classifier import Classifier
from tokenmill.pipeline.fasttext.model_file import FastTextModel, load_model
from tokenmill.pipeline.fasttext.output import huffman_tree
from tokenmill.tokenizer.words import Splitter

SMALL = Recipe(words=("a", "b"), labels=("__label__x", "__label__y"), buckets=3, dim=2)
PRUNED = Recipe(
    words=("a", "b"), labels=("__label__x", "__label__y"), buckets=3, dim=2, kept=2,
    quantised=True, has_norms=True, has_output_codes=True, piece=1,
)  # fmt: skip


def load_bytes(folder: Path, data: bytes) -> FastTextModel:
    path = folder / "model.ftz"
    path.write_bytes(data)
    return load_model(path)


def test_labels_come_without_their_prefix_in_the_order_of_the_file(tmp_path):
    model = load_model(write_model(tmp_path, Recipe()))
    assert model.labels == tuple(label.removeprefix("__label__") for label in LABELS)


@pytest.mark.parametrize("recipe", [SMALL, PRUNED])
def test_a_file_that_is_cut_anywhere_is_refused(recipe, tmp_path):
    whole = model_bytes(recipe)
    load_bytes(tmp_path, whole)
    cuts = range(len(whole)) if len(whole) < 2000 else [*range(300), *range(300, len(whole), 97)]
    for cut in cuts:
        with pytest.raises((RecipeError, SourceError), match=r"model.ftz: "):
            load_bytes(tmp_path, whole[:cut])


@pytest.mark.parametrize("recipe", [SMALL, PRUNED])
def test_a_file_with_a_wrong_byte_is_refused_or_gives_probabilities(recipe, tmp_path):
    whole = model_bytes(recipe)
    words = Splitter().split(["a b c", "", "a\x00b </s>"])
    for at in range(min(len(whole), 300)):
        for byte in (0, 1, 127, 255):
            data = bytearray(whole)
            data[at] = byte
            try:
                classifier = Classifier(load_bytes(tmp_path, bytes(data)), max_sum_bytes=10_000)
            except (RecipeError, SourceError):
                continue
            labels, _ = classifier.best(classifier.vectors(words))
            assert (labels < len(classifier.labels)).all()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        RecipeError, match=r"no.bin: expected a fastText model, found none \(No suc"
    ):
        load_model(tmp_path / "no.bin")
    with pytest.raises(
        RecipeError, match=r"expected a fastText model, found none \(Is a directory"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0", b"PAR1" * 100])
def test_another_kind_of_file_is_refused(data, tmp_path):
    with pytest.raises(RecipeError, match=r"model.ftz: expected a fastText model \(.bin or .ftz\)"):
        load_bytes(tmp_path, data)


def test_a_later_version_is_refused(tmp_path):
    with pytest.raises(
        RecipeError, match="expected a fastText model of version 11 or 12, found 13"
    ):
        load_bytes(tmp_path, model_bytes(Recipe(version=13)))


def test_a_model_of_word_vectors_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"trained with labels .* found one of word vectors"):
        load_bytes(tmp_path, model_bytes(Recipe(kind=2)))


def test_a_truncated_matrix_is_named_with_its_sizes(tmp_path):
    whole = model_bytes(SMALL)
    expected = rf"the output matrix should end at byte {len(whole)}, the file has {len(whole) - 1}"
    with pytest.raises(SourceError, match=expected):
        load_bytes(tmp_path, whole[:-1])


def test_a_pruned_model_that_is_not_quantised_is_refused(tmp_path):
    with pytest.raises(SourceError, match="a pruned model is quantised, this one is not"):
        load_bytes(tmp_path, model_bytes(Recipe(kept=3)))


def test_rows_outside_the_matrix_are_refused(tmp_path):
    data = model_bytes(SMALL)
    buckets = struct.pack("<i", 3)
    at = 8 + 8 * 4
    assert data[at : at + 4] == buckets
    with pytest.raises(SourceError, match="the input matrix has 5 rows, 6 are named"):
        load_bytes(tmp_path, data[:at] + struct.pack("<i", 4) + data[at + 4 :])


def test_dense_matrices_stay_in_the_file(tmp_path):
    model = load_model(write_model(tmp_path, Recipe()))
    for matrix in (model.input.matrix.dense, model.output.weights):
        assert not matrix.flags.owndata
        assert not matrix.flags.writeable


def test_an_unknown_label_is_answered_with_the_known_ones(tmp_path):
    classifier = Classifier(load_model(write_model(tmp_path, Recipe())))
    assert classifier.numbers(["zh", "en"]).tolist() == [2, 0]
    with pytest.raises(
        RecipeError, match=r"has no label lo. Did you mean low\? Its labels: de, en"
    ):
        classifier.numbers(["en", "lo"])


def test_the_rarest_labels_are_joined_first():
    tree = huffman_tree(np.array([5, 3, 2]))
    assert tree.children.tolist() == [[-1, -1], [-1, -1], [-1, -1], [2, 1], [3, 0]]
    assert tree.parents.tolist() == [4, 3, 3, 4, -1]
