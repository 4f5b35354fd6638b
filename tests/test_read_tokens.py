"""Sources whose tokens exist already: what datatrove and Megatron wrote is what is packed."""

import struct

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.tokens.megatron_tokenizer import MegatronTokenizedFile
from datatrove.pipeline.tokens.tokenizer import TokenizedFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_runs import WORDS, make_texts, prepare, write_recipe, write_vocabulary

from tokenmill.cli import main
from tokenmill.errors import SourceError
from tokenmill.pipeline import plan
from tokenmill.pipeline.documents import SetAside
from tokenmill.pipeline.mill_tokens import check_vocabulary
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read_tokens import TokenDocuments, read_tokens, strip
from tokenmill.pipeline.sources import InputFile, SourceConfig, list_files
from tokenmill.pipeline.token_files import TokensConfig
from tokenmill.shards.listing import read_listing
from tokenmill.shards.run import TokenizerInfo
from tokenmill.tokenizer import load_tokenizer

INFO = TokenizerInfo(
    sha256="", vocab_size=1000, pad_id=0, mask_id=4, prefix=(2,), separator=(3,), suffix=(3,),
    unk_id=1, special_ids=(0, 1, 2, 3, 4),
)  # fmt: skip
DOCUMENTS = [[10, 11, 12], [20], [], [30, 31], [40, 41, 42, 43]]


def source(folder, **settings):
    return SourceConfig(kind="web", path=str(folder), format="tokens", licence="CC0", **settings)


def read(config, info=INFO):
    """The documents of a source by file and position, and what was set aside."""
    listed = list_files("own", config)
    files = [InputFile(name, str(path), path.stat().st_size, "") for name, path in listed]
    units, unreadable = plan_units("own", config, files)
    found, set_aside = [], list(unreadable)
    for unit in units:
        for item in read_tokens(unit, config, info):
            if isinstance(item, SetAside):
                set_aside.append(item)
                continue
            assert len(set(item.documents.doc_ids.tolist())) == len(item.ends)
            found += [ids.tolist() for ids in np.split(item.tokens, item.ends)[:-1]]
    return found, set_aside


def write_datatrove(folder, documents, *, name="a.ds", token_size=2, tokenizer="mine"):
    """As datatrove's own writer does it."""
    file = TokenizedFile(
        str(folder), name, token_size=token_size, save_final_metadata=True,
        tokenizer_name_or_path=tokenizer,
    )  # fmt: skip
    for ids in documents:
        file.write(ids, None)
    file.close()


def write_megatron(folder, documents, *, name="a", token_size=2):
    file = MegatronTokenizedFile(str(folder), name, token_size=token_size)
    for ids in documents:
        file.write(ids)
    file.close()


def write_parquet(folder, documents, type=None):
    type = type or pa.list_(pa.uint16())
    table = pa.table({"text": pa.array(documents, type)})
    pq.write_table(table, folder / "a.parquet", row_group_size=2)


@pytest.mark.parametrize("write", [write_datatrove, write_megatron, write_parquet])
def test_what_was_written_is_read(tmp_path, write):
    write(tmp_path, DOCUMENTS)
    assert read(source(tmp_path)) == (DOCUMENTS, [])


@pytest.mark.parametrize("write", [write_datatrove, write_megatron])
@pytest.mark.parametrize("token_size", [2, 4])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    documents=st.lists(st.lists(st.integers(5, 999), max_size=6), max_size=12),
    unit_bytes=st.sampled_from([4, 12, 40, 1000]),
)
def test_ranges_of_bytes_hold_every_document_once(
    tmp_path_factory, monkeypatch, write, token_size, documents, unit_bytes
):
    folder = tmp_path_factory.mktemp("tokens")
    write(folder, documents, token_size=token_size)
    monkeypatch.setattr(plan, "UNIT_BYTES", unit_bytes)
    found, set_aside = read(source(folder))
    # A file without a token has no range; its documents are empty.
    assert found == (documents if sum(map(len, documents)) else [])
    assert set_aside == []


def test_a_document_of_several_megatron_sequences_is_one(tmp_path):
    write_megatron(tmp_path, [[1], [5, 6], [7], [8, 9]])
    index = bytearray((tmp_path / "a.idx").read_bytes())
    sequences = 4
    head = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, 8, sequences, 3)
    body = index[34 : 34 + 12 * sequences]
    (tmp_path / "a.idx").write_bytes(head + body + struct.pack("<3q", 0, 3, 4))
    assert read(source(tmp_path)) == ([[1, 5, 6, 7], [8, 9]], [])


@pytest.mark.parametrize(
    "type",
    [
        pa.list_(pa.int32()),
        pa.large_list(pa.int64()),
        pa.list_(pa.uint16()),
        pa.list_(pa.int32(), 2),
    ],
)
def test_a_column_of_lists_may_have_any_width(tmp_path, type):
    documents = [[10, 11], [12, 13], [14, 15]]
    write_parquet(tmp_path, documents, type)
    assert read(source(tmp_path)) == (documents, [])


def test_rows_without_ids_are_set_aside(tmp_path):
    table = pa.table({"text": pa.array([[5, 6], None, [7, None], [8]], pa.list_(pa.int32()))})
    pq.write_table(table, tmp_path / "a.parquet")
    found, set_aside = read(source(tmp_path))
    assert found == [[5, 6], [8]]
    assert [(lost.place, lost.error) for lost in set_aside] == [
        ("record 1", "no tokens (null)"),
        ("record 2", "a null among the ids"),
    ]


def test_a_column_of_text_is_no_column_of_tokens(tmp_path):
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "a.parquet")
    found, (lost,) = read(source(tmp_path))
    assert (found, lost.place) == ([], "rows 0 to 1")
    assert lost.error == "column text: expected lists of whole numbers, found string"


def test_special_tokens_go_at_the_ends_and_stay_inside(tmp_path):
    write_datatrove(tmp_path, [[2, 10, 3, 11, 3, 0, 0], [2, 3], [1, 12, 1], [50, 13, 50, 3]])
    expected = [[10, 3, 11], [], [1, 12, 1], [50, 13, 50]]
    assert read(source(tmp_path))[0] == expected
    named = source(tmp_path, tokens=TokensConfig(strip=(50,)))
    assert read(named)[0] == [*expected[:3], [13]]


@given(st.lists(st.lists(st.integers(0, 4), max_size=8), max_size=8))
def test_strip_is_python_s_strip(documents):
    ids = np.array([i for ids in documents for i in ids], np.int64)
    bounds = np.cumsum([0, *map(len, documents)])
    starts, stops = strip(ids, bounds, np.array([0, 3]))
    for i, document in enumerate(documents):
        text = "".join(map(str, document)).strip("03")
        assert "".join(map(str, ids[starts[i] : stops[i]])) == text


def test_ids_beyond_the_vocabulary_are_set_aside_with_their_document(tmp_path, monkeypatch):
    write_datatrove(tmp_path, [[10], [11, 1000], [12], [5000, 6000]])
    found, set_aside = read(source(tmp_path))
    assert found == [[10], [12]]
    assert [(lost.place, lost.error) for lost in set_aside] == [
        ("document 1", "id 1000 is not in the vocabulary of 1,000 tokens"),
        ("document 3", "id 5000 is not in the vocabulary of 1,000 tokens"),
    ]
    monkeypatch.setattr(plan, "UNIT_BYTES", 4)
    found, set_aside = read(source(tmp_path))
    assert found == [[10], [12]]
    assert [lost.place for lost in set_aside] == [
        "document 1", "document 0 after byte 8",
    ]  # fmt: skip


def test_a_document_longer_than_allowed_is_set_aside_unread(tmp_path):
    write_datatrove(tmp_path, [[10], [11] * 50, [12]])
    found, (lost,) = read(source(tmp_path, max_document_bytes=40))
    assert found == [[10], [12]]
    assert (lost.place, lost.error) == ("document 1", "longer than max_document_bytes (40)")


def cut(path, number):
    path.write_bytes(path.read_bytes()[:number])


DAMAGE = {
    "odd size": (lambda f: cut(f / "a.ds", -1), "19 bytes, but its index ends at token 10"),
    "cut": (lambda f: cut(f / "a.ds", -4), "16 bytes, but its index ends at token 10"),
    "cut index": (lambda f: cut(f / "a.ds.index", -8), "20 bytes, but its index ends at token 6"),
    "odd index": (lambda f: cut(f / "a.ds.index", -3), "a.ds.index has 37 bytes, no multiple of 8"),
    "falling index": (
        lambda f: (f / "a.ds.index").write_bytes(struct.pack("<5Q", 3, 9, 4, 6, 10)),
        "documents 0 to 4: the index falls",
    ),
    "other count": (
        lambda f: (f / "a.ds.metadata").write_text("mine|2\n11\n11 T"),
        "10 tokens of 2 bytes, but its metadata says 11 of 2",
    ),
    "other size": (
        lambda f: (f / "a.ds.metadata").write_text("mine|4\n10\n10 T"),
        "10 tokens of 2 bytes, but its metadata says 10 of 4",
    ),
    "no metadata": (
        lambda f: (f / "a.ds.metadata").write_text("{}"),
        "a.ds.metadata: expected name|bytes and a count of tokens",
    ),
    "no index": (
        lambda f: (f / "a.ds.index").unlink(),
        "a.ds.index belongs to it and is not there",
    ),
    "no tokens": (lambda f: (f / "a.ds").unlink(), "a.ds belongs to it and is not there"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_datatrove_file_is_set_aside_whole(tmp_path, damage):
    write_datatrove(tmp_path, DOCUMENTS)
    change, error = DAMAGE[damage]
    change(tmp_path)
    found, set_aside = read(source(tmp_path))
    assert found == []
    assert set_aside[0].error.startswith(error)
    assert len(set_aside) == (2 if damage == "no tokens" else 1)  # index and metadata


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (0, b"X", "its .idx does not begin as one of Megatron's (MMIDIDX)"),
        (9, b"\x02", "its .idx is of version 2 with ids of type 8"),
        (17, b"\x07", "its .idx is of version 1 with ids of type 7"),
        (18, b"\x04", "its .idx has 142 bytes, expected 130 for 4 sequences"),
        (34, b"\x02", "documents 0 to 4: the index does not join"),  # the first length
        (54 + 8, b"\x05", "documents 0 to 4: the index does not join"),  # the second pointer
        (94, b"\x01", "its documents do not cover all 5 sequences"),
        (94 + 8, b"\x03", "documents 0 to 4: the index does not join"),
    ],
)
def test_a_damaged_megatron_file_is_set_aside_whole(tmp_path, place, value, error):
    write_megatron(tmp_path, DOCUMENTS)
    index = bytearray((tmp_path / "a.idx").read_bytes())
    index[place : place + 1] = value
    (tmp_path / "a.idx").write_bytes(index)
    found, (lost,) = read(source(tmp_path))
    assert found == []
    assert lost.error.startswith(error)


def test_a_cut_file_of_many_ranges_is_reported_once(tmp_path, monkeypatch):
    write_megatron(tmp_path, DOCUMENTS * 10)
    cut(tmp_path / "a.bin", -2)
    monkeypatch.setattr(plan, "UNIT_BYTES", 20)
    found, (lost,) = read(source(tmp_path))
    assert (found, lost.error) == ([], "198 bytes, but its index ends at byte 200")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A recipe with text and, as datatrove's own tokenizer wrote it, the same kind of text."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare(folder)
    load_tokenizer(write_vocabulary(folder)).save(folder / "vocab")
    texts = make_texts(50, seed=5)
    step = DocumentTokenizer(
        str(folder / "tokens"), str(folder / "vocab" / "tokenizer.json"), seed=1,
        shuffle_documents=False,
    )  # fmt: skip
    step.run(Document(text=text, id=str(i)) for i, text in enumerate(texts))
    return folder, texts


def recipe_of(folder, **changes):
    mapping = {
        "text": {
            "kind": "web", "path": str(folder / "in"), "format": "parquet",
            "columns": {"text": "content"},
        },
        "made": {
            "kind": "web", "path": str(folder / "tokens"), "format": "tokens", "licence": "CC0",
            "tokens": {"tokenizer": "vocab"}, **changes,
        },
    }  # fmt: skip
    return write_recipe(folder, sources=mapping)


def build(recipe, run, *arguments):
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def test_tokens_are_packed_beside_text_and_not_judged(corpus, tmp_path, capsys):
    folder, texts = corpus
    assert build(recipe_of(folder), tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "50 of the documents came as tokens: no rule has judged them" in said
    rows = ds.dataset(tmp_path / "run" / "decisions" / "made", format="parquet").to_table()
    rows = sorted(rows.to_pylist(), key=lambda row: row["position"])
    encoder = load_tokenizer(folder / "vocab")
    assert [row["num_tokens"] for row in rows] == [len(encoder.encode([t])[0]) for t in texts]
    assert {row["licence"] for row in rows} == {"CC0"}
    first = {}
    for row, text in zip(rows, texts, strict=True):
        is_first = first.setdefault(text, row["doc_id"]) == row["doc_id"]
        assert row["reason"] == ("" if is_first else "exact_duplicate")
        assert row["duplicate_of"] == (0 if is_first else first[text])
    milled = sorted((tmp_path / "run" / "milled" / "made").rglob("tokens-*.arrow"))
    lists = [ids for path in milled for ids in pa.ipc.open_file(path).read_all()["tokens"]]
    assert [ids.as_py() for ids in lists] == [encoder.encode([t])[0].tolist() for t in texts]
    assert not (tmp_path / "run" / "text" / "made").exists()


def test_no_rule_or_edit_mills_tokens_anew(corpus, tmp_path, capsys):
    folder, _ = corpus
    recipe, run = recipe_of(folder), tmp_path / "run"
    build(recipe, run)
    before = {p: p.stat().st_mtime_ns for p in (run / "receipts" / "mill" / "made").iterdir()}
    build(recipe, run, "--set", "filters.length.min_words=9")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_bytes_do_not_depend_on_units_that_other_files_make(corpus, tmp_path):
    folder, _ = corpus
    build(recipe_of(folder), tmp_path / "a")
    build(recipe_of(folder), tmp_path / "b")
    assert read_listing(tmp_path / "a").root == read_listing(tmp_path / "b").root


def test_an_index_of_other_bytes_mills_anew(corpus, tmp_path):
    folder, _ = corpus
    made, run = tmp_path / "in", tmp_path / "run"
    made.mkdir()
    write_datatrove(made, [[40, 41], [42]], tokenizer="vocab")
    recipe = recipe_of(folder, path=str(made))
    assert build(recipe, run) == 0
    (made / "a.ds.index").write_bytes(struct.pack("<2Q", 1, 3))
    assert build(recipe, run) == 0
    rows = ds.dataset(run / "decisions" / "made", format="parquet").to_table().to_pylist()
    assert [row["num_tokens"] for row in rows] == [1, 2]


def test_another_tokenizer_s_name_stops_the_build_and_says_how_to_go_on(corpus, tmp_path, capsys):
    folder, _ = corpus
    recipe = recipe_of(folder, tokens={})
    assert build(recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    stated = folder / "vocab" / "tokenizer.json"
    assert f"made with the tokenizer {stated}, the recipe has {folder / 'vocab.txt'}" in said
    assert f"--set 'sources.made.tokens.tokenizer={stated}'" in said
    arguments = ("--set", f"sources.made.tokens.tokenizer={stated}")
    assert build(recipe, tmp_path / "run", *arguments) == 0


def test_ids_of_another_vocabulary_stop_the_build(corpus, tmp_path, capsys):
    folder, texts = corpus
    rows = (folder / "vocab.txt").read_text()
    for word in WORDS:  # this one writes them letter by letter, with ids that ours has too
        rows = rows.replace(f"\n{word}\n", f"\n{word.upper()}\n")
    (tmp_path / "vocab.txt").write_text(rows)
    encoder = load_tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "in").mkdir()
    ids = [encoder.encode([text])[0].tolist() for text in texts]
    write_datatrove(tmp_path / "in", ids, tokenizer="")
    recipe = recipe_of(folder, path=str(tmp_path / "in"))
    assert build(recipe, tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "they are another tokenizer's" in said
    assert (tmp_path / "in" / "a.ds.metadata").read_text().startswith("Unknown Tokenizer|2|2")


def test_real_tokens_of_datatrove_are_read_back(test_data, tmp_path):
    """Web pages through datatrove's own DocumentTokenizer, shuffled, with [SEP] after each."""
    path = sorted((test_data / "refinedweb").glob("*.parquet"))[0]
    texts = pq.read_table(path, columns=["content"])["content"].to_pylist()[:200]
    encoder = load_tokenizer(test_data / "tokenizers" / "bert-base-uncased")
    encoder.save(tmp_path / "bert")
    DocumentTokenizer(
        str(tmp_path / "ds"), str(tmp_path / "bert" / "tokenizer.json"), eos_token="[SEP]", seed=3
    ).run(Document(text=text, id=str(i)) for i, text in enumerate(texts))
    found, set_aside = read(source(tmp_path / "ds"), encoder.special)
    expected = [encoder.encode([text])[0].tolist() for text in texts]
    assert (sorted(found), set_aside) == (sorted(expected), [])


def test_tokens_are_sampled_and_forecast_like_text(corpus, tmp_path, capsys):
    folder, _ = corpus
    assert build(recipe_of(folder), tmp_path / "run", "--sample", "50%") == 0
    part = ds.dataset(tmp_path / "run/sample/decisions/made", format="parquet").to_table()
    assert build(recipe_of(folder), tmp_path / "run") == 0
    whole = ds.dataset(tmp_path / "run/decisions/made", format="parquet").to_table()
    tokens = dict(zip(*(whole[name].to_pylist() for name in ("doc_id", "num_tokens")), strict=True))
    assert 5 < part.num_rows < 45
    for doc_id, num_tokens in zip(
        *(part[n].to_pylist() for n in ("doc_id", "num_tokens")), strict=True
    ):
        assert tokens[doc_id] == num_tokens
    said = capsys.readouterr().out.split("\n")
    lines = [line.split() for line in said if line.startswith("documents read ")]
    # Every document of every unit was seen, milled or not: 120 of text, 50 of tokens.
    assert [line[2:] for line in lines] == [
        ["170", "170", "to", "170"],
        ["170", "170", "to", "170", "170", "yes"],
    ]


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("bert-base-uncased", "bert-base-uncased"),
        ("modernbert-base", "modernbert-base"),
        ("bert-base-uncased", "modernbert-base"),
        ("gpt2", "modernbert-base"),
    ],
)
def test_a_vocabulary_is_told_by_its_runs_of_ids(test_data, writer, reader):
    path = sorted((test_data / "refinedweb").glob("*.parquet"))[1]
    texts = pq.read_table(path, columns=["content"])["content"].to_pylist()[:40]
    ours, theirs = (load_tokenizer(test_data / "tokenizers" / name) for name in (reader, writer))
    ids = [theirs.encode([text])[0].astype(np.int64) for text in texts]
    known = [document[document < ours.vocab_size] for document in ids]
    batch = TokenDocuments(
        None, np.concatenate(known).astype(ours.dtype), np.cumsum([*map(len, known)])
    )
    if reader == writer:
        check_vocabulary(ours, batch, "here")
    else:
        with pytest.raises(SourceError, match=r"here: .* they are another tokenizer's"):
            check_vocabulary(ours, batch, "here")
