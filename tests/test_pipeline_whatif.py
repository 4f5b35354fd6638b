"""What if, and why: a finished run answers from its decisions."""

import os
import re
import subprocess
import sys

import pyarrow.dataset as ds
import pytest
from pipeline_runs import prepare, write_recipe

from tokenmill.cli import main

FILTERS = {"length": {"min_words": 5}, "symbols": {"max_share": 0.2}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whatif")
    prepare(folder, filters=FILTERS)
    build(folder, "run")
    return folder


def build(folder, run, *changes):
    arguments = [part for change in changes for part in ("--set", change)]
    recipe = str(folder / "recipe.yaml")
    out = ["--out", str(folder / run), "--engine", "inline"]
    assert main(["build", recipe, *out, *arguments]) == 1  # two bad lines


def waterfall(printed):
    """The first numbers of each line of the waterfall: rule, removed."""
    lines = printed[printed.index("rule ") :].split("bucket")[0].splitlines()[1:]
    found = [re.match(r"(\S+) +-([\d,]+) .* ([\d,]+) +([\d,]+)$", line) for line in lines]
    return {match[1]: match.groups()[1:] for match in found if match and match[2] != "0"}


@pytest.mark.parametrize("change", ["min_words=30", "max_words=60", "min_words=0"])
def test_what_if_gives_the_waterfall_of_a_run_that_is_built_so(finished, capsys, change):
    capsys.readouterr()
    assert main(["whatif", str(finished / "run"), "--set", f"filters.length.{change}"]) == 0
    answered = waterfall(capsys.readouterr().out)
    build(finished, f"run-{change}", f"filters.length.{change}")
    assert answered == waterfall(capsys.readouterr().out.replace("rule   ", "rule ", 1))


def test_what_if_nothing_changes_it_gives_the_run_itself(finished, capsys):
    build(finished, "run")
    built = waterfall(capsys.readouterr().out)
    assert main(["whatif", str(finished / "run"), "--set", "filters.length.min_words=5"]) == 0
    printed = capsys.readouterr().out
    assert waterfall(printed) == built
    assert "+0.0%" in printed
    assert "-" not in printed.split("change")[1].replace("0-15", "").replace("16-31", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("filters.length.kinds=[web]", "filters.length.kinds: it changes the text, or what is"),
        ("packing.overlong=drop", "only filters.* can be tried"),
        ("filters.datatrove=[{filter: LambdaFilter}]", "filters.datatrove: such a filter reads"),
        ("filters.lenght.min_words=3", "Did you mean length?"),
        ("filters.length.min_words=-1", "need 0 <= min_words <= max_words, got -1 and 100000"),
    ],
)
def test_what_the_signals_do_not_tell_is_refused(finished, capsys, change, said):
    assert main(["whatif", str(finished / "run"), "--set", change]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_reader_that_has_seen_enough_ends_the_output_quietly(finished):
    command = [sys.executable, "-m", "tokenmill", "whatif", str(finished / "run")]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        done = subprocess.run(
            [*command, "--set", "filters.length.min_words=9"], stdout=output, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_rule_that_the_run_did_not_have_is_refused(tmp_path, capsys):
    prepare(tmp_path)
    build(tmp_path, "run")
    assert main(["whatif", str(tmp_path / "run"), "--set", "filters.symbols.max_share=0.5"]) == 2
    assert "filters.symbols: this run did not measure it" in capsys.readouterr().err


def test_a_rule_can_be_left_out(finished, capsys):
    assert main(["whatif", str(finished / "run"), "--set", "filters.length=null"]) == 0
    printed = capsys.readouterr().out
    assert "without filters.length" in printed
    assert re.search(r"length.min_words +-0 +-\d+", printed)


def test_why_shows_every_check_and_the_one_that_decided(finished, capsys):
    rows = ds.dataset(finished / "run" / "decisions", format="parquet").to_table().to_pylist()
    short = next(row for row in rows if row["reason"] == "length.min_words")
    assert main(["why", str(finished / "run"), str(short["doc_id"])]) == 0
    printed = capsys.readouterr().out
    assert "leaves: length.min_words" in printed
    assert re.search(
        rf"length.min_words +num_words +{short['num_words']} +at least 5 +decided", printed
    )
    assert re.search(r"symbols.max_share +symbol_share +[\d.]+ +at most 0.2$", printed, re.M)


def test_why_finds_a_document_by_its_address_and_names_the_one_kept_in_its_place(finished, capsys):
    rows = ds.dataset(finished / "run" / "decisions", format="parquet").to_table().to_pylist()
    twin = next(row for row in rows if row["reason"] == "exact_duplicate" and row["url"])
    first = next(row for row in rows if row["doc_id"] == twin["duplicate_of"])
    assert main(["why", str(finished / "run"), twin["url"]]) == 0
    said = f"exact_duplicate of document {first['doc_id']} ({first['url']})"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("document", ["12345", "https://example.org/none"])
def test_why_of_an_unknown_document_says_where_else_to_look(finished, capsys, document):
    assert main(["why", str(finished / "run"), document]) == 2
    error = capsys.readouterr().err
    assert f"{document}: no document" in error
    assert "2 records that could not be read" in error


@pytest.mark.parametrize("command", [["whatif", "--set", "filters.length=null"], ["why", "1"]])
def test_a_run_that_is_not_there_is_named(tmp_path, capsys, command):
    write_recipe(tmp_path)
    assert main([command[0], str(tmp_path / "none"), *command[1:]]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err
