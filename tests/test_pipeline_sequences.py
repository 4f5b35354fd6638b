"""Sequences: each kind against a slow version over lists of tokens, and BERT's pairs against the
published algorithm's statistics."""

import random
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenmill.pipeline.dedup.steps import merge_spans
from tokenmill.pipeline.fill_rows import fill_rows
from tokenmill.pipeline.kept_documents import Kept, without_spans
from tokenmill.pipeline.pack import PackingConfig, RowShape, make_sequences
from tokenmill.pipeline.sentences import Sentences
from tokenmill.pipeline.sequences import Template
from tokenmill.shards.run import TokenizerInfo

BERT = ((1,), (2,), (2,))

TEMPLATES = st.sampled_from([BERT, ((1,), (2, 2), (2,)), ((), (), (2,)), ((1, 3), (4,), (4, 5, 2))])

LENGTHS = st.lists(st.lists(st.integers(1, 14), min_size=1, max_size=5), min_size=1, max_size=6)
"""(documents, sentences) tokens."""


def make_documents(lengths):
    """Documents whose sentences have these lengths. Token k of document i is 100 * i + k + 10."""
    totals = [sum(sentences) for sentences in lengths]
    tokens = [100 * i + k + 10 for i, total in enumerate(totals) for k in range(total)]
    starts = [sum(sentences[:k]) for sentences in lengths for k in range(len(sentences))]
    ends = np.cumsum([len(sentences) for sentences in lengths], dtype=np.int64)
    num_tokens = np.array(totals, np.int64)
    n = len(lengths)
    kept = Kept(
        doc_ids=np.arange(n, dtype=np.uint64) + 1000,
        hashes=np.random.default_rng(n).integers(0, 1 << 64, n, np.uint64),
        held_out=np.zeros(n, np.bool_),
        file=np.zeros(n, np.int32),
        start=np.cumsum(num_tokens) - num_tokens,
        num_tokens=num_tokens,
        sentences=Sentences(np.array(starts, np.int32), ends),
    )
    return kept, np.array(tokens).astype(np.uint16)


def tokenizer_of(template):
    prefix, separator, suffix = template
    return TokenizerInfo(
        sha256="", vocab_size=60_000, pad_id=0, mask_id=9, prefix=prefix, separator=separator,
        suffix=suffix, unk_id=None, special_ids=tuple(range(10)),
    )  # fmt: skip


def read_sequences(lengths, template, max_length, **packing):
    """The tokens of each sequence, written one a row; the rows; how many tokens are left out."""
    kept, tokens = make_documents(lengths)
    tokenizer = tokenizer_of(template)
    config, shape = PackingConfig(**packing), RowShape(max_length, max_length)
    sequences, cut = make_sequences(kept, config, Template.of(tokenizer), shape)
    if not len(sequences.ends):
        return [], None, cut
    row_ends = np.arange(1, len(sequences.ends) + 1)
    rows = fill_rows(sequences, row_ends, max_length, kept, [tokens], tokenizer)
    assert (rows.real_tokens() == sequences.lengths).all()
    assert (rows.num_special <= rows.lengths).all()
    found = [row[:n].tolist() for row, n in zip(rows.tokens, rows.real_tokens(), strict=True)]
    assert all((row[n:] == 0).all() for row, n in zip(rows.tokens, rows.real_tokens(), strict=True))
    return found, rows, cut


def texts(lengths):
    """The documents as lists of sentences of tokens."""
    found = []
    for i, sentences in enumerate(lengths):
        ids = iter(range(100 * i + 10, 100 * i + 110))
        found.append([[next(ids) for _ in range(length)] for length in sentences])
    return found


def flat(lists):
    return [value for values in lists for value in values]


@pytest.mark.parametrize("overlong", ["split", "truncate", "drop"])
@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
def test_documents_are_cut_as_the_policy_says(overlong, lengths, template, max_length):
    prefix, _, suffix = map(list, template)
    longest = max_length - len(prefix) - len(suffix)
    expected = []
    for document in map(flat, texts(lengths)):
        parts = [document[k : k + longest] for k in range(0, len(document), longest)]
        if len(parts) > 1:
            parts = {"split": parts, "truncate": parts[:1], "drop": []}[overlong]
        expected += [prefix + part + suffix for part in parts]
    found, _, cut = read_sequences(lengths, template, max_length, overlong=overlong)
    assert found == expected
    assert cut == sum(flat(lengths)) - sum(len(row) - len(prefix + suffix) for row in found)


@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
@example(lengths=[[5], [7]], template=((1, 3), (4,), (4, 5, 2)), max_length=11)  # cut in a prefix
def test_concatenated_documents_are_one_stream_of_which_nothing_is_lost(
    lengths, template, max_length
):
    prefix, _, suffix = map(list, template)
    stream = flat(prefix + flat(document) + suffix for document in texts(lengths))
    found, rows, cut = read_sequences(lengths, template, max_length, sequences="concatenated")
    assert found == [stream[k : k + max_length] for k in range(0, len(stream), max_length)]
    assert cut == 0
    assert rows.num_special.sum() == len(lengths) * (len(prefix) + len(suffix))


def slow_sentences(lengths, template, max_length, *, across):
    """Sentences one after the other into the open sequence, as long as it holds them."""
    prefix, _, suffix = map(list, template)
    longest = max_length - len(prefix) - len(suffix)
    sequences, parts = [], {}  # the open sequence: document to its tokens

    def close():
        if parts:
            sequences.append(prefix + flat(part + suffix for part in parts.values()))
            parts.clear()

    for i, document in enumerate(texts(lengths)):
        if not across:
            close()
        for sentence in document:
            for k in range(0, len(sentence), longest):
                part = sentence[k : k + longest]
                longer = {**parts, i: parts.get(i, []) + part}
                if len(prefix) + sum(len(p) + len(suffix) for p in longer.values()) > max_length:
                    close()
                parts[i] = parts.get(i, []) + part
    close()
    return sequences


@pytest.mark.parametrize("kind", ["full_sentences", "doc_sentences"])
@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(6, 20))
def test_sequences_hold_as_many_whole_sentences_as_fit(kind, lengths, template, max_length):
    found, rows, cut = read_sequences(lengths, template, max_length, sequences=kind)
    across = kind == "full_sentences"
    assert found == slow_sentences(lengths, template, max_length, across=across)
    assert cut == 0
    assert across or not rows.joined.any()


def test_a_part_of_a_sequence_knows_its_document_and_its_place_in_it():
    _, rows, _ = read_sequences([[4, 3], [5], [9]], BERT, 14, sequences="full_sentences")
    # [CLS] a a a a a a a [SEP] | b b b b b [SEP] is one too long: b goes to the next sequence.
    assert rows.doc_ids.tolist() == [1000, 1001, 1002]
    _, rows, _ = read_sequences([[4, 3], [4], [9]], BERT, 14, sequences="full_sentences")
    assert rows.joined.tolist() == [0, 1, 0]
    assert rows.lengths.tolist() == [9, 5, 11]
    assert rows.num_special.tolist() == [2, 1, 2]
    _, rows, _ = read_sequences([[5], [7]], BERT, 6, sequences="concatenated")
    assert rows.doc_ids.tolist() == [1000, 1000, 1001, 1001]
    assert rows.starts.tolist() == [0, 5, 0, 4]
    assert rows.num_special.tolist() == [1, 1, 1, 1]
    assert rows.joined.tolist() == [0, 0, 1, 0]


@given(lengths=LENGTHS, template=TEMPLATES, max_length=st.integers(10, 24))
def test_a_pair_is_a_text_and_what_follows_or_a_text_of_another_document(
    lengths, template, max_length
):
    prefix, separator, suffix = map(list, template)
    found, rows, cut = read_sequences(lengths, template, max_length, sequences="pairs")
    documents = [flat(document) for document in texts(lengths)]
    used, last = 0, {}
    piece = 0
    for sequence in found:
        assert len(sequence) <= max_length
        document, start = int(rows.doc_ids[piece]) - 1000, int(rows.starts[piece])
        length = int(rows.lengths[piece]) - int(rows.num_special[piece])
        first = documents[document][start : start + length]
        assert first
        assert last.get(document, 0) <= start
        used, last[document] = used + length, start + length
        piece += 1
        if piece == len(rows.joined) or not rows.joined[piece]:
            assert sequence == prefix + first + suffix
            assert len(lengths) == 1
            continue
        other, start = int(rows.doc_ids[piece]) - 1000, int(rows.starts[piece])
        length = int(rows.lengths[piece]) - int(rows.num_special[piece])
        second = documents[other][start : start + length]
        assert sequence == prefix + first + separator + second + suffix
        assert second
        if other == document:
            assert last[document] <= start
            used, last[document] = used + length, start + length
        piece += 1
    assert piece == len(rows.joined)
    assert cut == sum(flat(lengths)) - used
    assert {int(doc_id) for doc_id in rows.doc_ids} == {1000 + i for i in range(len(lengths))}


def published_pairs(documents, longest, rng):
    """create_instances_from_document of google-research/bert over lengths of sentences: for each
    pair the tokens of A and of B, whether B is random, and whether A begins inside a sentence."""
    for index, document in enumerate(documents):
        target = rng.randint(2, longest) if rng.random() < 0.1 else longest
        chunk, i = [], 0
        while i < len(document):
            chunk.append(document[i])
            if i == len(document) - 1 or sum(chunk) >= target:
                a_end = rng.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
                a, b = sum(chunk[:a_end]), sum(chunk[a_end:])
                is_random = len(chunk) == 1 or rng.random() < 0.5
                if is_random:
                    other = index
                    while other == index:
                        other = rng.randrange(len(documents))
                    b = 0
                    for length in documents[other][rng.randrange(len(documents[other])) :]:
                        b += length
                        if b >= target - a:
                            break
                    i -= len(chunk) - a_end
                front = 0
                while a + b > longest:
                    if a > b:
                        a -= 1
                        front += rng.random() < 0.5
                    else:
                        b -= 1
                yield a, b, is_random, front not in accumulate([0, *chunk])
                chunk = []
            i += 1


def test_pairs_have_the_statistics_of_the_published_code():
    rng = random.Random(0)
    lengths = [
        [rng.randint(3, 14) for _ in range(rng.choice([1, 2, 5, 12, 25]))] for _ in range(12_000)
    ]
    kept, _ = make_documents(lengths)
    template = Template.of(tokenizer_of(BERT))
    packing, shape = PackingConfig(sequences="pairs"), RowShape(64, 256)
    sequences, _ = make_sequences(kept, packing, template, shape)
    pieces, first = sequences.pieces, sequences.ends - 2
    begins = {
        (i, place) for i, document in enumerate(lengths) for place in accumulate([0, *document])
    }
    starts = zip(pieces.document[first].tolist(), pieces.start[first].tolist(), strict=True)
    ours = [
        pieces.num_tokens[first],
        pieces.num_tokens[first + 1],
        pieces.document[first] != pieces.document[first + 1],
        np.array([start not in begins for start in starts]),
    ]
    theirs = np.array([*published_pairs(lengths, 61, rng)]).T
    assert len(ours[0]) == pytest.approx(theirs.shape[1], rel=0.03)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.mean() == pytest.approx(expected.mean(), rel=0.04)
        assert found.std() == pytest.approx(expected.std(), rel=0.03)
    full = [(a + b == 61).mean() for a, b in (ours[:2], theirs[:2])]
    assert full[0] == pytest.approx(full[1], rel=0.03)


@given(
    lengths=LENGTHS,
    spans=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 40), st.integers(1, 20)), max_size=6
    ),
)
def test_a_sentence_begins_at_what_spans_leave_of_it(lengths, spans):
    kept, _ = make_documents(lengths)
    inside = [
        (document, start, min(start + length, sum(lengths[document])))
        for document, start, length in spans
        if document < len(lengths) and start < sum(lengths[document])
    ]
    columns = np.array(inside, np.int64).reshape(-1, 3).T
    cuts = merge_spans(columns[0].astype(np.uint64) + np.uint64(1000), columns[1], columns[2])
    found = without_spans(kept.sentences, kept.num_tokens, kept.doc_ids, cuts)
    expected = []
    for document, sentences in enumerate(lengths):
        number = np.repeat(np.arange(len(sentences)), sentences)
        stays = np.ones(len(number), np.bool_)
        for of, start, stop in inside:
            if of == document:
                stays[start:stop] = False
        expected.append(np.flatnonzero(np.diff(number[stays], prepend=-1)).tolist())
    parts = np.split(found.starts, found.ends[:-1]) if len(found.ends) else []
    assert [part.tolist() for part in parts] == expected
