"""JATS XML to text: what a reader of the article reads, and nothing that a hostile file wants."""

import json
import re
import tarfile
from collections import Counter

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tokenmill.pipeline.articles.article import BadArticle
from tokenmill.pipeline.articles.config import ArticleConfig
from tokenmill.pipeline.articles.creative_commons import creative_commons
from tokenmill.pipeline.articles.jats import jats_article
from tokenmill.pipeline.articles.mathml import MATHML
from tokenmill.pipeline.rules.licence import Standing, licence_standing

XLINK = 'xmlns:xlink="http://www.w3.org/1999/xlink"'


def article_of(xml, **policies):
    return jats_article(xml.encode(), ArticleConfig(**policies))


def body(inner, **policies):
    """The blocks of an article with that body."""
    text = article_of(f"<article {XLINK}><body>{inner}</body></article>", **policies).text
    return text.split("\n\n") if text else []


def test_an_article_is_read_from_its_title_to_its_references():
    article = article_of(
        f"""<?xml version="1.0" encoding="UTF-8"?>
        <!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS-archivearticle1.dtd">
        <article xml:lang="EN" {XLINK}><front><article-meta>
        <article-id pub-id-type="pmc">123</article-id>
        <article-id pub-id-type="doi">10.1/x</article-id>
        <title-group><article-title>Of <italic>mills</italic><xref ref-type="fn">*</xref>
        </article-title></title-group>
        <contrib-group><contrib><name><surname>Ito</surname></name></contrib></contrib-group>
        <permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"/>
        </permissions>
        <abstract><title>Summary</title><p>They turn.</p></abstract>
        </article-meta></front>
        <body><sec><label>1.</label><title>Wind</title><p>It <bold>blows</bold>
        <xref ref-type="bibr">[1]</xref>.</p></sec></body>
        <back><ack><p>Thanks.</p></ack><app-group><app><title>More</title><p>Data.</p></app>
        </app-group><ref-list><ref><label>1</label><element-citation><person-group><name>
        <surname>Ito</surname><given-names>K</given-names></name></person-group><year>2019</year>
        </element-citation></ref></ref-list></back>
        <sub-article><body><p>I reviewed this.</p></body></sub-article></article>""",
        references="keep",
    )
    assert article.text.split("\n\n") == [
        "Of mills", "Summary", "They turn.", "1. Wind", "It blows [1].", "More", "Data.",
        "1 Ito K 2019",
    ]  # fmt: skip
    assert (article.id, article.url) == ("PMC123", "https://doi.org/10.1/x")
    assert (article.licence, article.language) == ("CC-BY-4.0", "en")


@pytest.mark.parametrize(
    ("inner", "blocks"),
    [
        ("<p>a<break/>b&#160;c</p>", ["ab c"]),
        ("<p>one <list><list-item><p>x</p></list-item></list> two</p>", ["one", "- x", "two"]),
        (
            '<list list-type="order"><list-item><p>x</p></list-item>'
            "<list-item><p>y</p><list><list-item><p>z</p></list-item></list></list-item></list>",
            ["1. x", "2. y", "- z"],
        ),
        ("<list><list-item><label>a)</label><p>x</p></list-item></list>", ["a) x"]),
        # A figure in the middle of a sentence comes after it, with its label.
        (
            "<p>See <fig><label>Fig 1</label><caption><title>Mill.</title><p>Old.</p></caption>"
            "<graphic/></fig>here.</p>",
            ["See here.", "Fig 1 Mill.", "Old."],
        ),
        ("<fig><label>Fig 1</label><graphic/></fig><p>Next.</p>", ["Next."]),
        ("<preformat>  if x:\n    y\n</preformat>", ["  if x:\n    y"]),
        ("<p>wind<sup><xref ref-type='bibr'>1</xref>,<xref>2</xref></sup>.</p>", ["wind."]),
        ("<p>wind<xref ref-type='bibr'><sup>1</sup></xref>.</p>", ["wind."]),
        ("<p>10<sup>5</sup> m<sup>2</sup>, 10<sup>\u22123</sup></p>", ["10^5 m2, 10^\u22123"]),
        ("<p>5<sup>th</sup> H<sub>2</sub>O</p>", ["5th H2O"]),
        ("<p>a<!-- no --><?no no?>b</p>", ["ab"]),
        ("<supplementary-material><caption><p>x</p></caption></supplementary-material>", []),
        ("<p> </p><sec><title/></sec>", []),
    ],
)
def test_blocks(inner, blocks):
    assert body(inner) == blocks


FORMULA = (
    "<p>As <inline-formula><alternatives><mml:math xmlns:mml='http://www.w3.org/1998/Math/MathML'>"
    "<mml:mi>x</mml:mi></mml:math><tex-math>\\documentclass{minimal}\\begin{document}$$x^2$$"
    "\\end{document}</tex-math></alternatives></inline-formula> is.</p>"
)


def test_formulas_are_tex_or_nothing():
    assert body(FORMULA) == ["As $x^2$ is."]
    assert body(FORMULA, formulas="drop") == ["As is."]


@pytest.mark.parametrize(
    ("math", "text"),
    [
        ("<msup><mi>x</mi><mn>2</mn></msup><mo>=</mo><mn>4</mn>", "x^2=4"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mi>c</mi></mfrac>", "(a+b)/c"),
        ("<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>", "x_1^2"),
        ("<msqrt><mi>x</mi></msqrt>", "\u221ax"),
        ("<mover><mi>x</mi><mo>\u02c9</mo></mover>", "x\u02c9"),
        ("<msup><mi>x</mi></msup>", "x"),  # one part is missing
    ],
)
def test_mathml_without_tex_is_a_line_of_characters(math, text):
    formula = (
        f'<disp-formula><label>(1)</label><math xmlns="{MATHML[1:-1]}">{math}</math></disp-formula>'
    )
    assert body(formula) == [text]


def test_tables_keep_their_caption_and_by_policy_their_cells():
    table = (
        "<table-wrap><label>Table 1</label><caption><p>Mills.</p></caption><table><thead><tr>"
        "<th>kind</th><th>number</th></tr></thead><tbody><tr><td>wind</td><td><bold>3</bold></td>"
        "</tr></tbody></table><table-wrap-foot><p>As of 1900.</p></table-wrap-foot></table-wrap>"
    )
    assert body(table) == ["Table 1 Mills."]
    assert body(table, tables="keep") == [
        "Table 1 Mills.", "kind\tnumber\nwind\t3", "As of 1900.",
    ]  # fmt: skip


BOMB = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))


@pytest.mark.parametrize(
    ("xml", "error"),
    [
        ("", "no well-formed XML"),
        ("<article><body><p>x</body></article>", "no well-formed XML"),
        ("<article><body><p>a\0b</p></body></article>", "no well-formed XML"),
        ("<article><body>&nbsp;</body></article>", "'nbsp' not defined"),
        ("<html/>", "expected <article>, found <html>"),
        ("<article><info/></article>", "neither <front> nor <body>"),
        ("<article>" + "<sec>" * 300 + "</sec>" * 300 + "</article>", "Excessive depth"),
        (f'<!DOCTYPE article [<!ENTITY e0 "x">{BOMB}]><article><body>&e9;</body></article>',
         "amplification"),
        (f'<!DOCTYPE article [<!ENTITY e0 "x">{BOMB}]><article xml:lang="&e9;"><body/></article>',
         "amplification"),
    ],
)  # fmt: skip
def test_what_is_no_article_is_refused_by_name(xml, error):
    with pytest.raises(BadArticle, match=re.escape(error)):
        article_of(xml)


def test_no_entity_is_expanded_and_nothing_is_loaded(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("<p>secret</p>")
    xml = (
        f'<!DOCTYPE article PUBLIC "x" "file://{secret}" [<!ENTITY own "text">'
        f'<!ENTITY x SYSTEM "file://{secret}"><!ENTITY % y SYSTEM "file://{secret}"> %y;]>'
        "<article><body><p>&own; &x; &alpha; &#946; &lt; &unknown;</p></body></article>"
    )
    assert article_of(xml).text == "&own; &x; \u03b1 \u03b2 < &unknown;"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_the_encoding_is_the_one_that_the_file_states(encoding):
    xml = f'<?xml version="1.0" encoding="{encoding[:10].rstrip("-sig")}"?><article><body>'
    data = (xml + "<p>caf\u00e9</p></body></article>").encode(encoding)
    assert jats_article(data, ArticleConfig()).text == "caf\u00e9"
    with pytest.raises(BadArticle, match="no well-formed XML"):
        jats_article("<article><body>\u00e9</body></article>".encode("latin-1"), ArticleConfig())


NESTED = ("table tr td", "table tbody tr", "table tr tr", "alternatives p", "disp-formula p",
          "sup xref", "list list-item", "p fn", "fig caption", "boxed-text sec")  # fmt: skip


@pytest.mark.parametrize("tags", NESTED)
def test_no_nesting_makes_the_walk_slow(tags):
    """Each level that was entered twice would double the time, 2^80 times over."""
    names = tags.split() * (250 // len(tags.split()))
    inner = "".join(f"<{name}>" for name in names) + "x"
    inner += "".join(f"</{name}>" for name in reversed(names))
    assert len("".join(body(inner, tables="keep"))) < 1000


def _xml(children):
    names = ("p", "sec", "title", "list", "list-item", "fig", "caption", "sup", "xref")
    tags = st.sampled_from(names)
    return st.builds(
        lambda tag, inner: f"<{tag}>{''.join(inner)}</{tag}>", tags, st.lists(children)
    )


@given(inner=st.recursive(st.text("ab 1"), _xml, max_leaves=20))
def test_no_character_of_the_text_is_lost(inner):
    words = "".join(re.sub(r"<[^>]*>", "", inner).split())
    found = "".join("".join(body(f"<sec>{inner}</sec>")).split())
    assert Counter(found.replace("-", "").replace("^", "")) == Counter(words)


@pytest.mark.parametrize(
    ("statement", "licence"),
    [
        ("http://creativecommons.org/licenses/by/2.0", "CC-BY-2.0"),
        ("see https://creativecommons.org/licenses/by-nc-nd/4.0/ for", "CC-BY-NC-ND-4.0"),
        ("http://creativecommons.org/licenses/by/3/", "CC-BY-3.0"),
        ("http://creativecommons.org/licenses/by-sa/3.0/us/", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("Creative Commons Attribution 4.0 License", "CC-BY-4.0"),
        ("Creative Commons Attribution (CC BY 4.0) license", "CC-BY-4.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0", "CC-BY-NC-SA-3.0"),
        ("Creative Commons Attribution Non-Commercial No Derivatives", "CC-BY-NC-ND"),
        ("Creative Commons Attribution License (CC BY-NC 3.0)", "CC-BY-NC-3.0"),
        ("under CC-BY-SA.", "CC-BY-SA"),
        ("Creative Commons Zero", "CC0-1.0"),
        ("the Creative Commons Attribution License", "CC-BY"),
        ("All rights reserved.", None),
    ],
)
def test_licences_are_known_by_address_or_name(statement, licence):
    assert creative_commons(statement) == licence


def test_a_licence_that_is_not_known_is_not_silence():
    meta = "<article><front><article-meta>{}</article-meta></front><body/></article>"
    licence = "<permissions><license><license-p>Ask us.</license-p></license></permissions>"
    stated = article_of(meta.format(licence)).licence
    assert stated == "NOASSERTION"
    assert licence_standing(stated, {"mit"}) == Standing.UNKNOWN
    assert article_of(meta.format("")).licence is None


def grams(text):
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[i:] for i in range(5)), strict=False))


def test_real_articles_read_as_others_read_them(test_data):
    """The data's own text leaves out captions of tables, and runs superscript citations into the
    word before; formulas are TeX here and MathML's characters there."""
    truth = {}
    with zstandard.open(test_data / "science/jsonl/science-00.jsonl.zst", "rt") as file:
        for record in map(json.loads, file):
            truth[record["metadata"]["raw_file"]] = record
    both = ours = theirs = 0
    with tarfile.open(test_data / "science/jats/articles-00.tar.gz") as archive:
        members = [member for member in archive if member.name in truth][:60]
        assert len(members) > 20
        for member in members:
            record = truth[member.name]
            article = jats_article(archive.extractfile(member).read(), ArticleConfig())
            assert article.id == record["id"]
            doi = record["metadata"]["doi"]
            assert article.url == (doi and f"https://doi.org/{doi}")
            assert article.licence.startswith(record["metadata"]["licence"])
            mine, other = grams(article.text), grams(record["text"])
            both += (mine & other).total()
            ours += mine.total()
            theirs += other.total()
    assert both / ours > 0.96  # precision; 0.980 over all 555 articles
    assert both / theirs > 0.985  # recall; 0.992
