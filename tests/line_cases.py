"""Texts whose lines are hard to see as Python's str methods see them, and real ones."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from hypothesis import strategies as st

from tokenmill.pipeline.rules.checks import Rule, Verdict, judge
from tokenmill.pipeline.rules.english import EnglishSplitter, EnglishWords
from tokenmill.tokenizer.words import Splitter

LINE_BREAKS = [
    "\n", "\n", "\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029",
]  # fmt: skip
SPACES = [
    " ", " ", " ", " ", "  ", "\t", "\x1f", "\xa0", "\u1680", "\u2003", "\u202f", "\u205f",
    "\u3000",
]  # fmt: skip
WORDS = [
    "It", "rains", "again", "and", "a", "12", "\u4f60\u597d", "\xe9t\xe9", "\U0001f600", "\u200b",
    "\x00", "U.S.", "e.g.", "don't", "x" * 1000, "\u4f60" * 1000, "y" * 1001, "\u4f60" * 1001,
]  # fmt: skip
MARKS = [
    ".", ".", "?", "!", '"', "'", "...", "..", "\u2026", ")", ".)", "\u3002", "\u203d", "\u061f",
    "\U000110be", ":", "-", "\u201d", "$",
]  # fmt: skip
CITATIONS = [
    "[1]", "[12]", "[]", "[edit]", "[Edit]", "[citation needed]", "[citation  needed]", "[[3]]",
    "[\u0664\u0665]", "[\U0001d7d9]", "[\xb2]", "[1", "1]", "[ed", "[citation needed",
]  # fmt: skip
PHRASES = [
    "javascript", "JavaScript", "java", "java[1]script", "lorem ipsum", "Lorem IPSUM", "lorem",
    " ipsum", "{", "terms of use", "TERMS of use", "terms of", "privacy policy", "Cookie policy",
    "coo\u212aie policy", "uses cookies", "use of coo\u212aies", "use cookies", "cookies", "\u0130",
    "privac\u212ay policy", "use", "ook", "y policy",
]  # fmt: skip
RUBBISH = [
    "HOME", "ABOUT US", "\xc9T\xc9 OK", "\u01c5", "3 likes", "1.2K Followers", "12,5m  views!",
    "\u0663 shares", "_3 likes", "3 likes_", "3 kikes", "\xb2 likes", "(4\xa0QUOTES)", "3 ",
    "likes", "K", "2023", "\u0661\u0662", "\xb2", "items in cart", "Items In Cart", "items in",
    "Read more...", "read more ...", "READ MORE...", "Read more", "Sign-in", "sign-in", "Sign-ins",
    "\u017fign-in", " cart",
]  # fmt: skip


def texts_of(*pieces: list[str]) -> st.SearchStrategy[str]:
    """Texts of these pieces, with words, white space and line breaks of all kinds between them."""
    kinds = [st.sampled_from(kind) for kind in (WORDS, SPACES, LINE_BREAKS, *pieces)]
    line = st.lists(st.one_of(kinds), max_size=8).map("".join)
    parts = st.one_of(line, st.just("It rains again."), st.sampled_from(LINE_BREAKS))
    return st.lists(parts, max_size=8).map("".join)


def string_array(texts: list[str]) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


@cache
def _splitters() -> tuple[Splitter, EnglishSplitter]:
    return Splitter(), EnglishSplitter()


def english_words(texts: pa.LargeStringArray) -> EnglishWords:
    """spaCy's words, with tables that all tests share."""
    splitter, english = _splitters()
    return english.split(splitter.split(texts))


def reasons_of(rule: Rule, signals: Mapping[str, Any], num_documents: int) -> list[str]:
    """The setting that each document breaks first, "" for none."""
    verdict = Verdict(num_documents)
    judge({"": rule}, signals, verdict)
    return [verdict.reasons[code].removeprefix(".") for code in verdict.codes]


def real_texts(folder: Path, count: int, most_bytes: int = 3000) -> list[str]:
    """So many short documents each of the web, of code, and (cut short) in many languages."""
    texts: list[str] = []
    for pattern in ("refinedweb/*.parquet", "code/*.parquet"):
        path = min(folder.glob(pattern))
        found = pq.read_table(path, columns=["content"])["content"].to_pylist()
        texts += [text for text in found if len(text.encode()) < most_bytes][:count]
    packed = (folder / "languages/declaration-of-human-rights.jsonl.zst").read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(packed) as lines:
        found = [json.loads(line)["text"] for line in lines.read().splitlines()]
    return texts + [text[: most_bytes // 3] for text in found[:: 1 + len(found) // count]]
