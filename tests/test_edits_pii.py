"""Addresses are replaced as datatrove's PIIFormatter replaces them, document by document."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.pipeline.formatters import PIIFormatter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenmill.errors import RecipeError
from tokenmill.pipeline.edits.pii import PiiConfig, replace_pii

PIECES = st.sampled_from(
    [
        "a", "Z", "9", "_", "\xe9", "\u4e2d", "\u0663", "\u2019", "+", "-", "--", "'", "{", "|",
        "/", ".", "..", "@", "@@", "[", "]", ":", ",", ";", "(", ")", "<", ">", '"', "\\", "\x00",
        "\x1c", " ", "\n", "\t", "\r", "\xa0", "\u2028", "\u3000", "jane.doe@mill.org",
        "o'hara@a.co.uk", "93.184.216.34", "x@[1.2.3.4]", "x@[tag:", "8.8.8.8", "10.0.0.1",
        "192.168.1.", "256.1.1.1", "1.2.3.4.5", "08.8.8.8", "255", "25", "0",
        "mailto:a@b.c", "a@b-.c", "a@-b.c", "a@b.-c", "a@b..c",
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=10).map("".join) | st.text(alphabet="a1.@[]: \n", max_size=30)


def as_datatrove_replaces(texts: list[str], **settings) -> list[str]:
    return [PIIFormatter(**settings).format(text) for text in texts]


def replaced(texts: list[str], config: PiiConfig = PiiConfig()) -> list[str]:  # noqa: B008
    return replace_pii(pa.array(texts, pa.large_string()), config).texts.to_pylist()


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXTS, max_size=4))
@example(["@", ".", "a@b.c", "a@b.c@d.e", "\xe9a@b.c", "1.1.1.1", "", "a@b.c", "1.2.3.4a@b.c"])
def test_every_document_comes_out_as_from_a_fresh_formatter(texts):
    assert replaced(texts) == as_datatrove_replaces(texts)


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.booleans(), st.booleans(), st.booleans())
def test_every_setting_means_what_it_means_to_datatroves_formatter(text, emails, ips, public):
    config = PiiConfig(
        emails=emails,
        ips=ips,
        public_ips_only=public,
        email_replacements=("9.9.9.9", "b@c.de"),
        ip_replacements=("<ip>",),
    )
    formatter = PIIFormatter(emails, ips, public, ("9.9.9.9", "b@c.de"), "<ip>")
    assert replaced([text], config) == [formatter.format(text)]


def test_the_defaults_are_datatroves():
    formatter = PIIFormatter()
    assert PiiConfig().email_replacements == formatter.emails_replacer.replacements
    assert PiiConfig().ip_replacements == formatter.ip_replacer.replacements


def test_a_character_that_ends_a_run_is_in_no_address_and_no_letter():
    from tokenmill.pipeline.edits.pii import _BYTE_SETS, _INSIDE

    formatter = PIIFormatter()
    ends = [chr(byte) for byte in range(0x80) if not _BYTE_SETS[byte] & _INSIDE]
    assert " " in ends
    for character in ends:
        assert not re.match(r"\w", character)
        for address in ("a@b.cd", "a@[1.1.1.1]", "1.2.3.4"):
            for at in range(1, len(address)):
                text = address[:at] + character + address[at:]
                for replacer in (formatter.emails_replacer, formatter.ip_replacer):
                    assert all(character not in match for match in replacer.regex.findall(text))


def test_replacements_come_in_turn_and_each_document_begins_with_the_first():
    """The one difference from datatrove, whose formatter goes on where the last document ended."""
    texts = ["a@b.cd, e@f.gh, i@j.kl", "a@b.cd"]
    first, second = PiiConfig().email_replacements
    assert replaced(texts) == [f"{first}, {second}, {first}", first]
    formatter = PIIFormatter()
    assert [formatter.format(text) for text in texts][1] == second


def test_edits_are_counted_and_an_untouched_batch_is_handed_on():
    texts = pa.array(["a@b.cd 8.8.8.8 10.0.0.1", "nothing @ all", "10.0.0.1"], pa.large_string())
    edited = replace_pii(texts, PiiConfig())
    assert edited.num_edits.tolist() == [2, 0, 0]
    assert edited.num_edits.dtype == np.int32
    untouched = texts[1:]
    assert replace_pii(untouched, PiiConfig()).texts is untouched


def test_a_line_of_many_megabytes_costs_no_more_than_its_addresses():
    line = "QUJD" * 2_000_000
    text = f"{line} a@b.cd,{line}"
    assert replaced([text]) == [f"{line} email@example.com,{line}"]


def test_replacements_must_be_given():
    with pytest.raises(RecipeError, match="email_replacements: expected at least one"):
        PiiConfig(email_replacements=())


@pytest.mark.parametrize("folder", ["refinedweb", "code"])
def test_real_documents_come_out_as_from_a_fresh_formatter(test_data, folder):
    texts = []
    for file in sorted((test_data / folder).glob("*.parquet")):
        texts += pq.read_table(file, columns=["content"])["content"].to_pylist()
    texts = [text for text in texts[::40] if len(text) < 100_000]
    assert replaced(texts) == as_datatrove_replaces(texts)
