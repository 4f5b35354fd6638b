"""Source files: language by name, licence by the file's own words or by the files around it."""

import json
from importlib.metadata import distributions

import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pipeline_runs import prepare
from pygments.lexers import find_lexer_class_for_filename

from tokenmill.cli import main
from tokenmill.pipeline.code_files import is_licence_file
from tokenmill.pipeline.code_languages import LINGUIST, MEANT, language_of
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.licence_texts import NOASSERTION, known_licences
from tokenmill.pipeline.plan import plan_units
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sources import InputFile, SourceConfig, list_files

MIT = """The MIT License
Copyright (c) 2020 K. Ito

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files, to deal in it without restriction:
The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software."""
BSD = """Redistribution and use in source and binary forms, with or without
// modification, are permitted provided that the following conditions are met:"""
ENDORSE = "\n3. may be used to endorse or promote products derived from this software"


def units_of(folder, **settings):
    config = SourceConfig(kind="code", path=str(folder), format="files", licence="X", **settings)
    files = [InputFile(n, str(p), p.stat().st_size, "") for n, p in list_files("s", config)]
    return plan_units("s", config, files)[0], config


def facts_of(folder, **settings):
    """(licence, language) of each document by its name."""
    units, config = units_of(folder, **settings)
    facts = {}
    for unit in units:
        for documents in read_unit(unit, config):
            assert isinstance(documents, Documents)
            columns = (documents.ids, documents.licences, documents.languages)
            rows = zip(*(column.to_pylist() for column in columns), strict=True)
            facts |= {name: (licence, language) for name, licence, language in rows}
    return facts


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_file_has_the_nearest_licence_unless_it_states_its_own(tmp_path):
    write(tmp_path, {
        "README.md": "# all",
        "a/LICENSE": MIT,
        "a/x.py": "pass",
        "a/deep/er/y.rs": "fn main() {}",
        "a/own.c": "/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */",
        "a/page.html": "<!-- SPDX-License-Identifier: (MIT OR Apache-2.0) -->",
        "a/blank.go": "// SPDX-License-Identifier: @ID@",
        "a/late.py": "#" * 5000 + "SPDX-License-Identifier: ISC",
        "a/vendor/COPYING.txt": "Ask us.",
        "a/vendor/z.js": "1",
        "b/LICENSE-APACHE": "Apache License\n Version 2.0, January 2004",
        "b/LICENSE-MIT": MIT,
        "b/x.go": "package x",
        "b/license.py": "MIT = 1",
    })  # fmt: skip
    assert facts_of(tmp_path, patterns=["*"]) == {
        "README.md": ("X", "Markdown"),
        "a/LICENSE": ("MIT", None),
        "a/x.py": ("MIT", "Python"),
        "a/deep/er/y.rs": ("MIT", "Rust"),
        "a/own.c": ("GPL-2.0-only WITH Linux-syscall-note", "C"),
        "a/page.html": ("(MIT OR Apache-2.0)", "HTML"),
        "a/blank.go": ("MIT", "Go"),
        "a/late.py": ("MIT", "Python"),
        "a/vendor/COPYING.txt": (NOASSERTION, "Text"),
        "a/vendor/z.js": (NOASSERTION, "JavaScript"),
        "b/LICENSE-APACHE": ("Apache-2.0, MIT", None),
        "b/LICENSE-MIT": ("Apache-2.0, MIT", None),
        "b/x.go": ("Apache-2.0, MIT", "Go"),
        "b/license.py": ("Apache-2.0, MIT", "Python"),
    }
    # A licence file that the patterns leave out is not there.
    assert facts_of(tmp_path, patterns=["*.rs"]) == {"a/deep/er/y.rs": ("X", "Rust")}


def test_the_licence_files_of_a_unit_are_its_inputs_and_only_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tokenmill.pipeline.plan.UNIT_BYTES", 1)  # a unit for each file
    write(
        tmp_path, {"a/LICENSE": MIT, "a/x.py": "1", "b/y.py": "2", "c/COPYING": BSD, "c/z.py": "3"}
    )
    units, _ = units_of(tmp_path)
    inputs = {unit.files[0].name: [f.name for f in unit.files if f.is_beside] for unit in units}
    assert inputs == {
        "a/LICENSE": ["a/LICENSE"], "a/x.py": ["a/LICENSE"], "b/y.py": [],
        "c/COPYING": ["c/COPYING"], "c/z.py": ["c/COPYING"],
    }  # fmt: skip
    assert {name: licence for name, (licence, _) in facts_of(tmp_path).items()} == {
        "a/LICENSE": "MIT", "a/x.py": "MIT", "b/y.py": "X",
        "c/COPYING": "BSD-2-Clause", "c/z.py": "BSD-2-Clause",
    }  # fmt: skip


def test_a_licence_that_changes_mills_what_is_under_it_anew(tmp_path):
    write(tmp_path / "code", {"a/LICENSE": MIT, "a/x.py": "wind mill stone grain water " * 5})
    place = {"kind": "code", "path": str(tmp_path / "code"), "format": "files"}
    recipe = prepare(tmp_path, sources={"code": place})
    out = tmp_path / "run"

    def licence():
        assert main(["build", str(recipe), "--out", str(out), "--engine", "inline"]) == 0
        (file,) = out.glob("decisions/code/*.parquet")
        rows = pq.read_table(file).to_pylist()
        return next(row["licence"] for row in rows if row["id"] == "a/x.py")

    assert licence() == "MIT"
    write(tmp_path / "code", {"a/LICENSE": BSD + ENDORSE})
    assert licence() == "BSD-3-Clause"


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        *((name, True) for name in ("LICENSE", "a/licence.txt", "COPYING.LESSER", "LICENSE-MIT",
                                    "MIT-LICENSE.md", "UNLICENSE", "license.Apache-2.0")),
        *((name, False) for name in ("license.py", "licenses.json", "LICENSE/x", "relicense.sh",
                                     "copying-files.c", "README")),
    ],
)  # fmt: skip
def test_what_is_named_like_a_licence(name, is_one):
    assert is_licence_file(name) == is_one


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (MIT, "MIT"),
        (MIT[: MIT.index("The above")], "MIT-0"),
        (BSD, "BSD-2-Clause"),
        (BSD + ENDORSE, "BSD-3-Clause"),
        ("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007", "GPL-3.0"),
        ("GNU LESSER GENERAL PUBLIC LICENSE Version 2.1, February 1999", "LGPL-2.1"),
        ("Mozilla Public License, v. 2.0.", "MPL-2.0"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        (MIT + BSD, "MIT, BSD-2-Clause"),
        ("", NOASSERTION),
    ],
)
def test_licences_are_known_by_their_phrases(text, found):
    assert known_licences(text) == found


def test_licences_of_installed_packages_are_those_that_they_declare():
    """Packages with one licence and one file of it; some ship a text that is none of ours."""
    agree, differ = 0, []
    for package in distributions():
        declared = package.metadata.get("License-Expression")
        files = [
            f for f in package.files or [] if ".dist-info" in str(f) and is_licence_file(f.name)
        ]
        if declared is None or " " in declared or len(files) != 1:
            continue
        found = known_licences(package.locate_file(files[0]).read_text(errors="replace"))
        if declared in found.split(", "):
            agree += 1
        elif found != NOASSERTION:
            differ.append((package.name, declared, found))
    assert agree >= 10
    assert len(differ) <= agree // 10, differ


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a/b.py", "Python"), ("Makefile", "Makefile"), ("x/Dockerfile", "Dockerfile"),
        ("a.h", "C"), ("a.tar.gz", None), ("README", None), (".bashrc", "Shell"), ("a.pl", "Perl"),
        ("CMakeLists.txt", "CMake"), ("a.sql", "SQL"), ("git.1", "Roff"), ("", None), (".py", None),
        ("x.d.ts", "TypeScript"), ("\udcff.rs", "Rust"),
    ],
)  # fmt: skip
def test_languages(name, language):
    assert language_of(name) == language


@given(name=st.from_regex(r"[a-zA-Z]{1,3}(\.[a-zA-Z+]{1,5}){0,2}", fullmatch=True))
def test_the_table_says_what_pygments_says(name):
    lexer = find_lexer_class_for_filename(name)
    expected = lexer and LINGUIST.get(lexer.name, lexer.name)
    if not any(name.endswith(ending) for ending in MEANT):
        assert language_of(name) == expected


def test_languages_are_those_of_the_data(test_data):
    rows = []
    for path in sorted((test_data / "code").glob("*.parquet")):
        table = pq.read_table(path, columns=["max_stars_repo_path", "lang"])
        rows += [tuple(row.values()) for row in table.to_pylist()]
    for path in sorted((test_data / "code").glob("*.zst")):
        with zstandard.open(path, "rt") as file:
            rows += [(row["path"], row["lang"]) for row in map(json.loads, file)]
    agree = sum(language_of(name) == language for name, language in rows)
    assert len(rows) == 4031
    assert agree / len(rows) > 0.995
