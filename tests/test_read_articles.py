"""Archives of articles: every sound member comes out, every break has its place."""

import gzip
import io
import json
import subprocess
import tarfile
import zlib

import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import prepare

from tokenmill.cli import main
from tokenmill.pipeline.archive import Broken, Unpacked, read_members
from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.documents import Documents, SetAside, Skipped
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig, list_files


def xml(text, **meta):
    ids = "".join(f'<article-id pub-id-type="{k}">{v}</article-id>' for k, v in meta.items())
    front = f"<front><article-meta>{ids}</article-meta></front>"
    return f"<article>{front}<body><p>{text}</p></body></article>".encode()


def tar(members, compress=None):
    """An archive of (name, bytes or a TarInfo type) in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes) and len(data) > 1:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data, "elsewhere"
                archive.addfile(info)
    data = buffer.getvalue()
    return compress(data) if compress else data


def source(path, format="jats", **settings):
    return SourceConfig(kind="science", path=str(path), format=format, **settings)


def read_all(config):
    """Documents as (id, url, licence, text), doc ids, what was set aside, what was skipped."""
    files = [
        InputFile(name, str(path), path.stat().st_size, "")
        for name, path in list_files("s", config)
    ]
    units, unreadable = plan_units("s", config, files)
    assert not unreadable
    documents, ids, aside, skipped = [], [], [], 0
    for unit in units:
        for item in read_unit(unit, config):
            if isinstance(item, Documents):
                columns = (item.ids, item.urls, item.licences, item.texts)
                documents += zip(*(column.to_pylist() for column in columns), strict=True)
                ids += item.doc_ids.tolist()
            elif isinstance(item, SetAside):
                aside.append((item.file, item.place, item.error))
            else:
                assert isinstance(item, Skipped)
                skipped += item.count
    assert len(set(ids)) == len(ids)
    return documents, ids, aside, skipped


def texts_of(config):
    documents, _, aside, _ = read_all(config)
    return [text for *_, text in documents], aside


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_members_are_read_in_their_order_and_named_by_what_they_say(tmp_path, name):
    members = [
        ("in/", tarfile.DIRTYPE),
        ("in/1.xml", xml("one", pmc="7", doi="10.1/x")),
        ("in/picture.jpg", b"\xff\xd8\xff"),
        ("in/2.NXML", xml("two", doi="10.1/y")),
        ("in/3.xml", xml("three")),
    ]
    (tmp_path / name).write_bytes(tar(members, gzip.compress if name != "a.tar" else None))
    documents, ids, aside, skipped = read_all(source(tmp_path, licence="CC0-1.0"))
    assert documents == [
        ("PMC7", "https://doi.org/10.1/x", "CC0-1.0", "one"),
        ("10.1/y", "https://doi.org/10.1/y", "CC0-1.0", "two"),
        ("in/3.xml", None, "CC0-1.0", "three"),
    ]
    assert [doc_id & 0xFFFFFF for doc_id in ids] == [1, 3, 4]
    assert (aside, skipped) == ([], 1)


def test_what_tar_itself_packs_is_read(tmp_path):
    (tmp_path / "in").mkdir()
    long_name = "x" * 180 + ".xml"  # in a header of its own
    (tmp_path / "in" / long_name).write_bytes(xml("long"))
    for kind in ("gnu", "pax", "ustar"):
        name = long_name if kind != "ustar" else "y.xml"
        (tmp_path / "in" / name).write_bytes(xml("long"))
        packed = tmp_path / f"{kind}.tar.gz"
        subprocess.run(
            ["tar", f"--format={kind}", "-czf", packed, "-C", tmp_path / "in", name], check=True
        )
        assert texts_of(source(packed)) == (["long"], [])


def test_files_in_a_folder_are_a_document_each(tmp_path):
    (tmp_path / "dir.xml").mkdir()
    (tmp_path / "a.xml").write_bytes(xml("one"))
    (tmp_path / "dir.xml" / "b.nxml").write_bytes(xml("two"))
    (tmp_path / "empty.xml").write_bytes(b"")
    (tmp_path / "html.xml").write_bytes(b"<html/>")
    documents, _, aside, _ = read_all(source(tmp_path))
    assert [(name, text) for name, *_, text in documents] == [
        ("a.xml", "one"),
        ("dir.xml/b.nxml", "two"),
    ]
    assert [(file, place) for file, place, _ in aside] == [
        ("empty.xml", "file"),
        ("html.xml", "file"),
    ]
    assert "Document is empty" in aside[0][2]
    assert "no JATS: expected <article>, found <html>" in aside[1][2]


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("x.xml", tarfile.SYMTYPE, "a link"),
        ("x.xml", tarfile.LNKTYPE, "a link"),
        ("x.xml", tarfile.FIFOTYPE, "a link"),
        ("x.xml", b"<article><body><p>cut", "no well-formed XML"),
        ("../../x.xml", b"<html></html>", "../../x.xml: no JATS"),
        ("x\udcff.xml", b"<html></html>", "x?.xml: no JATS"),
        ("x.xml", b" " * 5000, "5000 bytes, max_document_bytes is 2000"),
    ],
)
def test_a_bad_member_is_set_aside_and_the_rest_is_read(tmp_path, name, data, error):
    members = [("a.xml", xml("one")), (name, data), ("b.xml", xml("two"))]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as archive:
        for title, content in members:
            info = tarfile.TarInfo(title)
            if len(content) > 1:
                info.size = len(content)
            else:
                info.type, info.linkname = content, "a.xml"
            archive.addfile(info, io.BytesIO(content) if len(content) > 1 else None)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    texts, aside = texts_of(source(tmp_path, max_document_bytes=2000))
    assert texts == ["one", "two"]
    assert [(file, place) for file, place, _ in aside] == [("a.tar", "member 1")]
    assert error in aside[0][2]


def test_a_member_of_200_mb_is_passed_by_in_little_memory(tmp_path):
    bomb = zlib.compressobj(wbits=31)
    path = tmp_path / "a.tar.gz"
    info = tarfile.TarInfo("big.xml")
    info.size = 200_000_000
    with path.open("wb") as file:
        file.write(bomb.compress(info.tobuf()))
        for _ in range(200):
            file.write(bomb.compress(bytes(1_000_000)))
        rest = bytes(-info.size % 512) + tar([("a.xml", xml("after"))])
        file.write(bomb.compress(rest) + bomb.flush())
    assert path.stat().st_size < 300_000
    texts, ((_, place, error),) = texts_of(source(path))
    assert (texts, place) == (["after"], "member 0")
    assert "200000000 bytes, max_document_bytes is" in error


ARTICLES = [
    (f"{i}.xml", xml(f"{i} " + " ".join(str(i * 7919 + j) for j in range(400)))) for i in range(12)
]
WHOLE = tar(ARTICLES)


@given(cut=st.integers(0, len(WHOLE) - 1), packed=st.booleans())
def test_a_cut_archive_gives_what_stood_whole_and_one_break(tmp_path_factory, cut, packed):
    path = tmp_path_factory.mktemp("cut") / "a.tar.gz"
    # Stored, not compressed: a cut of the bytes is a cut of the members.
    path.write_bytes(gzip.compress(WHOLE, 0)[: cut + 10] if packed else WHOLE[:cut])
    texts, aside = texts_of(source(path))
    assert [int(text.split()[0]) for text in texts] == list(range(len(texts)))
    size = len(WHOLE) // len(ARTICLES)
    assert len(texts) >= cut // size - 1
    if WHOLE[cut:].strip(b"\0"):
        assert len(aside) == 1
        assert "broken" in aside[0][2] or "no well-formed XML" in aside[0][2]


@given(
    places=st.lists(st.integers(0, len(WHOLE) - 1), min_size=1, max_size=4), bit=st.integers(0, 7)
)
def test_a_damaged_archive_is_read_to_an_end_and_never_silently(places, bit):
    damaged = bytearray(WHOLE)
    for place in places:
        damaged[place] ^= 1 << bit
    members, broken = 0, False
    try:
        for member in read_members(Unpacked(io.BytesIO(damaged))):
            while member.content and member.content.read(1000):
                pass
            members += 1
    except Broken:
        broken = True
    assert broken or members == len(ARTICLES)


def test_ends_that_tarfile_would_not_tell_are_told(tmp_path):
    first, second = tar(ARTICLES[:1]), tar(ARTICLES[1:2])
    end = first.rstrip(b"\0") + bytes(-len(first.rstrip(b"\0")) % 512)
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    packed = bytearray(gzip.compress(first))
    packed[-8] ^= 1  # the checksum
    for data, error in [
        (end, "empty header"),
        (end + b"x" * 512, "invalid header"),
        (first + second, "bytes behind its end"),
        (end + long_name.tobuf() + bytes(2048), "a header of 4294967296 bytes"),
        (bytes(packed), "gzip stream broken: CRC check failed"),
        (bytes(1024), None),
    ]:
        path = tmp_path / "a.tar.gz"
        path.write_bytes(data)
        texts, aside = texts_of(source(path))
        assert len(texts) == (error is not None)
        assert [place for _, place, _ in aside] == (["after member 0"] if error else [])
        assert error is None or error in aside[0][2]


MAIN = b"\\documentclass{article}\\title{%s}\\begin{document}\\input{in}\\end{document}"


def test_an_archive_of_tex_files_is_one_article(tmp_path):
    files = [("fig.png", b"\x89PNG"), ("./main.tex", MAIN % b"Mill"), ("in.tex", b"It turns.")]
    (tmp_path / "2101.00001v2.tar.gz").write_bytes(tar(files, gzip.compress))
    (tmp_path / "notes.tar").write_bytes(tar([("none.txt", b"none")]))
    (tmp_path / "alone.tex").write_bytes(b"A \\emph{piece}.\\input{main}")
    documents, ids, aside, skipped = read_all(source(tmp_path, "latex", licence="arXiv"))
    assert sorted(documents) == [
        ("2101.00001v2", "https://arxiv.org/abs/2101.00001v2", "arXiv", "Mill\n\nIt turns."),
        ("alone", None, "arXiv", "A piece."),
    ]
    assert (aside, skipped) == ([], 2)
    assert sorted(doc_id & 0xFFFFFF for doc_id in ids)[0] == 1  # the number of main.tex


def test_a_bulk_archive_holds_an_article_in_each_gzip_member(tmp_path):
    article = tar([("main.tex", MAIN % b"Mill"), ("in.tex", b"It turns."), ("f.eps", b"%!PS")])
    members = [
        ("9901/hep-th9901001.gz", gzip.compress(article)),
        ("9901/9901.pdf", b"%PDF"),
        ("9901/0704.0001.gz", gzip.compress(b"\\documentstyle{x}\\begin{document}Alone.")),
        ("9901/0704.0002.gz", gzip.compress(article)[:-40]),
        ("9901/0704.0003.gz", gzip.compress(tar([("a.txt", b"no tex")]))),
        ("9901/0704.0004.gz", gzip.compress(b"%PDF \0\0 no tex")),
        ("9901/0704.0005.gz", gzip.compress(b"x" * 10_000_000)),
        ("9901/0704.0006.gz", tarfile.SYMTYPE),
        ("9901/0704.0007.gz", gzip.compress(b"\\documentclass{x}\\begin{document}Last.")),
    ]
    (tmp_path / "bulk.tar").write_bytes(tar(members))
    documents, ids, aside, skipped = read_all(source(tmp_path, "latex", max_document_bytes=100_000))
    assert [(name, url, text) for name, url, _, text in documents] == [
        ("hep-th/9901001", "https://arxiv.org/abs/hep-th/9901001", "Mill\n\nIt turns."),
        ("0704.0001", "https://arxiv.org/abs/0704.0001", "Alone."),
        ("0704.0007", "https://arxiv.org/abs/0704.0007", "Last."),
    ]
    assert [doc_id & 0xFFFFFF for doc_id in ids] == [0, 2, 8]
    assert skipped == 1
    errors = dict(
        zip([place for _, place, _ in aside], [error for *_, error in aside], strict=True)
    )
    assert list(errors) == [f"member {i}" for i in (3, 4, 5, 6, 7)]
    assert "gzip stream broken" in errors["member 3"]
    assert "no LaTeX article: 0 TeX files" in errors["member 4"]
    assert "no LaTeX article" in errors["member 5"]
    assert "max_document_bytes" in errors["member 6"]
    assert "a link" in errors["member 7"]


def test_an_archive_is_a_unit_and_small_files_are_units_of_many(tmp_path):
    for name in ("a.tar.gz", "b.tar"):
        (tmp_path / name).write_bytes(tar(ARTICLES))
    for i in range(5):
        (tmp_path / f"{i}.xml").write_bytes(xml("x"))
    config = source(tmp_path)
    files = [InputFile(n, str(p), p.stat().st_size, "") for n, p in list_files("s", config)]
    units, _ = plan_units("s", config, files)
    assert [[file.name for file in unit.files] for unit in units] == [
        [f"{i}.xml" for i in range(5)], ["a.tar.gz"], ["b.tar"],
    ]  # fmt: skip


def test_policies_and_the_library_are_part_of_what_is_read():
    plain, keep = source("x"), source("x", articles=ArticleConfig(tables="keep"))
    assert plain.reading() != keep.reading()
    assert any("lxml" in str(part) for part in plain.reading())
    assert any("pylatexenc" in str(part) for part in source("x", "latex").reading())


def test_all_real_articles_are_read(test_data):
    documents, ids, aside, skipped = read_all(source(test_data / "science" / "jats"))
    assert (len(documents), len(ids), aside, skipped) == (555, 555, [], 0)
    assert {licence for _, _, licence, _ in documents} <= {
        "CC-BY", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0",
    }  # fmt: skip


def test_a_build_keeps_what_stood_before_a_break_and_says_so(tmp_path):
    folder = tmp_path / "articles"
    folder.mkdir()
    packed = gzip.compress(tar([(f"{i}.xml", xml("wind mill stone " * 9)) for i in range(3)]), 0)
    (folder / "whole.tar.gz").write_bytes(packed)
    (folder / "cut.tar.gz").write_bytes(packed[:1600])
    place = {"kind": "science", "path": str(folder), "format": "jats", "licence": "CC0-1.0"}
    recipe = prepare(tmp_path, sources={"science": place})
    roots = []
    for run in (tmp_path / "one", tmp_path / "two"):
        assert main(["build", str(recipe), "--out", str(run), "--engine", "inline"]) == 1
        roots.append(json.loads((run / "outputs.json").read_text())["root"])
        rows = ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()
        assert sorted(row["id"] for row in rows) == ["0.xml", "0.xml", "1.xml", "2.xml"]
        (aside,) = map(json.loads, (run / "set-aside.jsonl").read_text().splitlines())
        assert (aside["file"], aside["place"]) == ("cut.tar.gz", "member 1")
    assert roots[0] == roots[1]
