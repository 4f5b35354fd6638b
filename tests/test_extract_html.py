"""Pages to texts: what each extractor keeps, and what its settings change."""

import json
import runpy
from pathlib import Path

import pytest
from warc_files import response

from tokenmill.errors import RecipeError
from tokenmill.pipeline.extract.child import Outcome, extract
from tokenmill.pipeline.extract.config import ExtractionConfig
from tokenmill.pipeline.extract.html import close_elements, html_to_text
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.shards.settings import read_settings

ROOT = Path(__file__).parent.parent

STORY = " ".join(f"The miller of the town ground grain number {i} into flour." for i in range(20))
PAGE = f"""<!DOCTYPE html><html><head><title>Mills</title></head><body>
<nav><ul><li><a href="/">Home page</a></li><li><a href="/about">About us</a></li></ul></nav>
<main><article><h1>The mill</h1><p>{STORY}</p>
<p>The <a href="https://river.example/">river</a> turns the wheel of the mill day and night.</p>
<img src="x.png" alt="A picture of a mill">
</article></main>
<div id="comments" class="comments"><div class="comment"><p>First comment of a reader here, who
likes mills a lot and writes long sentences about them.</p></div></div>
<footer><p>Copyright of the footer</p></footer></body></html>"""
BOTH = [ExtractionConfig(), ExtractionConfig(extractor="trafilatura")]


@pytest.mark.parametrize("config", BOTH, ids=lambda config: config.extractor)
def test_the_main_content_is_kept_and_the_rest_is_not(config):
    text = html_to_text(PAGE, config)
    assert STORY in text
    assert "The river turns the wheel" in text
    for left_out in ("Home page", "footer", "First comment", "A picture", "<p>", "river.example"):
        assert left_out not in text


@pytest.mark.parametrize("config", BOTH, ids=lambda config: config.extractor)
def test_a_page_without_text_gives_an_empty_one(config):
    assert html_to_text("<html><body></body></html>", config) == ""


def test_settings_let_in_more():
    everything = html_to_text(PAGE, ExtractionConfig(main_content=False, comments=True))
    assert all(words in everything for words in ("Home page", "footer", "First comment"))
    for extractor in ("resiliparse", "trafilatura"):
        config = ExtractionConfig(extractor=extractor, links=True)
        assert "river.example" in html_to_text(PAGE, config)
    commented = ExtractionConfig(extractor="trafilatura", comments=True)
    assert "First comment" in html_to_text(PAGE, commented)


def test_xhtml_may_close_what_html_cannot():
    xhtml = '<html><head><title/><script src="x"/></head><body><p>one<br/>two<b/> three</p>'
    assert close_elements(xhtml) == (
        '<html><head><title></title><script src="x"></script></head>'
        "<body><p>one<br/>two<b></b> three</p>"
    )
    block = response(xhtml.encode(), content_type="application/xhtml+xml")
    outcome, text = extract(block, ExtractionConfig(main_content=False), 1 << 20)
    assert (outcome, text.split()) == (Outcome.TEXT, ["one", "two", "three"])


def test_nul_characters_are_left_out():
    block = response(b"<html><body><p>nul\0 bytes\0\0</p></body></html>")
    assert extract(block, ExtractionConfig(main_content=False), 1 << 20)[1] == "nul bytes"


def test_what_an_extractor_raises_is_the_answer(monkeypatch):
    class PanicException(BaseException):
        """As Rust code raises it."""

    def panic(*_: object) -> str:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("tokenmill.pipeline.extract.child.html_to_text", panic)
    answer = extract(response(PAGE.encode()), ExtractionConfig(), 1 << 20)
    assert answer == (Outcome.BAD, "resiliparse: PanicException: index out of bounds")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extractor": "trafilatura", "main_content": False}, "main_content: trafilatura has no"),
        ({"favour": "precision"}, "favour: resiliparse leans to nothing"),
        ({"seconds": 0}, r"seconds must lie between 0.001 and 3600, got 0"),
        ({"extractor": "readability"}, "expected one of resiliparse, trafilatura"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        read_settings(ExtractionConfig, settings, "extraction")


def test_extraction_decides_on_what_is_read_of_warc_files_only():
    other = ExtractionConfig(main_content=False)
    for kind, matters in (("warc", True), ("wet", False), ("jsonl", False)):
        usual = SourceConfig(kind="web", path="p", format=kind).reading()
        changed = SourceConfig(kind="web", path="p", format=kind, extraction=other).reading()
        assert (usual != changed) == matters


def test_both_extractors_find_what_people_marked(test_data):
    quality = runpy.run_path(str(ROOT / "benchmarks" / "extraction_quality.py"))
    gold = (test_data / "web" / "gold-segments.jsonl").read_text().splitlines()
    pages = [json.loads(line) for line in gold]
    wanted = {page["url"] for page in pages}
    blocks = dict(quality["responses"](test_data / "web" / "warc", wanted))
    assert len(blocks) == 25
    for config, least in zip(BOTH, (0.93, 0.97), strict=True):
        texts = {url: quality["text_of"](block, config) for url, block in blocks.items()}
        marks = quality["judge"](pages, texts)
        assert sum(marks) == 147
        assert marks.f1 >= least
