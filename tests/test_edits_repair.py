"""Repair gives what datatrove's FTFYFormatter gives, though ftfy sees hardly a line."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.pipeline.formatters import FTFYFormatter
from ftfy.badness import BADNESS_RE, is_bad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmill.pipeline.edits import repair as repair_module
from tokenmill.pipeline.edits.mojibake import ASTRAL, mojibake_pairs
from tokenmill.pipeline.edits.repair import RepairConfig, repair

NAMED_BY_FTFY = sorted({c for c in BADNESS_RE.pattern if c > "\x7f"} | set("aZ9 .,\n\t?"))
PIECES = st.sampled_from(
    [
        *NAMED_BY_FTFY, "\x00", "\x0b", "\x1b[31m", "\x1b", "\r", "\r\n", "\n", "\x85", "\x9d",
        "\x7f", "\u2028", "\ufeff", "\ufffc", "\u206a", "\u02bc", "\u201b", "\ufb01", "\uff71",
        "\uff21", "\u3000", "e\u0301", "&amp;", "&", "&#233;", "&#xe9;", "&#x110000;", "&nosuch;",
        "&EACUTE;", "&amp;lt;", "<", ";", "&#xD83D;", "&CounterClockwiseContourIntegral;",
        "&0123456789012345678901234;", "sch\xc3\xb6n", "\xe2\u20ac\u0153", "\xe2\u20ac\ufffd",
        "\xc3 la", "voil\xc3 ", "\u0432\u0402\u2122", "\xef\xbb\xbf", "\U0001f600", "\U00010437",
        "\u4e2d\u6587", "word ", " the ",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30)
CONFIGS = st.builds(
    RepairConfig,
    unescape_html=st.sampled_from([True, False, "auto"]),
    normalization=st.sampled_from([None, "NFC", "NFKD"]),
    **{
        name: st.booleans()
        for name in ("remove_terminal_escapes", "fix_encoding", "restore_byte_a0",
                     "replace_lossy_sequences", "decode_inconsistent_utf8", "fix_c1_controls",
                     "fix_latin_ligatures", "fix_character_width", "uncurl_quotes",
                     "fix_line_breaks", "fix_surrogates", "remove_control_chars")
    },
)  # fmt: skip


def as_ftfy_repairs(texts: list[str], config: RepairConfig) -> list[str]:
    flags = {name: getattr(config, name) for name in RepairConfig.__slots__ if name != "kinds"}
    formatter = FTFYFormatter(**flags)
    return [formatter.format(text) for text in texts]


def repaired(texts: list[str], config: RepairConfig = RepairConfig()) -> list[str]:  # noqa: B008
    return repair(pa.array(texts, pa.large_string()), config).texts.to_pylist()


def lines_sent(texts: list[str]) -> int:
    array = pa.array(texts, pa.large_string())
    offsets, data = repair_module.text_buffers(array)
    config = RepairConfig()
    return len(
        repair_module._find_suspects(
            data, offsets, repair_module._byte_classes(config), *repair_module._tables(config), 1
        )
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXTS, max_size=5))
@example(["a œ", "œ\n", "œ", "x Ã ", "Ã la", "Ã\n", "&amp;\n<\n&amp;", "é» x", "é»"])
def test_every_text_comes_out_as_from_datatroves_formatter(texts):
    assert repaired(texts) == as_ftfy_repairs(texts, RepairConfig())


@settings(max_examples=200, deadline=None)
@given(TEXTS, CONFIGS)
def test_every_setting_means_what_it_means_to_datatroves_formatter(text, config):
    assert repaired([text], config) == as_ftfy_repairs([text], config)


def test_the_defaults_are_datatroves():
    default = FTFYFormatter().config
    for name in RepairConfig.__slots__:
        if name != "kinds":
            assert getattr(RepairConfig(), name) == getattr(default, name), name


def test_whatever_ftfy_finds_bad_holds_a_suspect_pair():
    pairs = mojibake_pairs()
    checked = 0
    for left, right in itertools.product(NAMED_BY_FTFY, repeat=2):
        for text in (left + right, f"a{left}{right}a", f" {left}{right} ", f"{left}{right}{left}"):
            if not is_bad(text):
                continue
            points = [min(ord(character), ASTRAL) for character in text]
            together = pairs.first[points[:-1]] & pairs.second[points[1:]]
            assert together.any() or pairs.alone[points].any(), repr(text)
            checked += 1
    assert checked > 10_000


@pytest.mark.parametrize(
    "clean",
    ["plain text", "\u201cCurly,\u201d she\u2019s said \u2013 caf\xe9\u2026", "x\xb2 \u2264 1",
     "R & D; a&b; 1 < 2", "\u041f\u0440\u0438\u0432\u0435\u0442 \u4f60\u597d", "na\xefve\r\n\ttab",
     "5 \u20ac or \xa33", "\U0001f600\U0001f600 two \xe9\U0001f600 x", "<p>&amp;</p>"],
)  # fmt: skip
def test_clean_lines_are_not_sent(clean):
    assert lines_sent([clean]) == 0
    assert repaired([clean]) == as_ftfy_repairs([clean], RepairConfig()) == [clean]


def test_one_bad_line_sends_itself_alone():
    texts = ["clean\n" * 50 + "schÃ¶n\n" + "clean\n" * 50, "clean", "&lt;\n&lt;"]
    assert lines_sent(texts) == 3
    assert repaired(texts) == as_ftfy_repairs(texts, RepairConfig())


def test_edits_count_lines_and_an_untouched_batch_is_handed_on():
    texts = pa.array(["&eacute; \x00\nplain\nÃ©", "plain", "", "\x00"], pa.large_string())
    edited = repair(texts, RepairConfig())
    assert edited.texts.to_pylist() == ["é \nplain\né", "plain", "", ""]
    assert edited.num_edits.tolist() == [2, 0, 0, 1]
    assert edited.num_edits.dtype == np.int32
    untouched = texts[1:3]
    assert repair(untouched, RepairConfig()).texts is untouched
    assert repair(texts[2:], RepairConfig()).texts.to_pylist() == ["", ""]


@pytest.mark.parametrize("tag_at", [0, 999_000, 1_000_500, None])
def test_a_line_that_ftfy_cuts_comes_out_the_same(tag_at):
    line = "&amp; caf&eacute; " * 62_000
    if tag_at is not None:
        line = line[:tag_at] + "<" + line[tag_at:]
    text = f"&amp;\n{line}\nschÃ¶n &amp;"
    assert repaired(["a", text, "b"]) == as_ftfy_repairs(["a", text, "b"], RepairConfig())


@pytest.mark.parametrize("folder", ["refinedweb", "code"])
def test_real_documents_come_out_as_from_datatroves_formatter(test_data, folder):
    texts = []
    for file in sorted((test_data / folder).glob("*.parquet")):
        texts += pq.read_table(file, columns=["content"])["content"].to_pylist()
    texts = [text for text in texts[::60] if len(text) < 100_000]
    assert repaired(texts) == as_ftfy_repairs(texts, RepairConfig())
