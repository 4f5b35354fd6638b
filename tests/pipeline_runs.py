"""Small corpora and recipes for the tests of the pipeline."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from tokenmill.cli import main
from tokenmill.shards.files import sha256_file, write_json
from tokenmill.shards.listing import read_listing

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("mill", "stone", "grain", "flour", "water", "wheel", "river", "bread", "wind", "sail")
SMALL_UNIT_BYTES = 4000
"""Makes some ten units from write_sources' files."""
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_vocabulary(folder: Path) -> Path:
    """A WordPiece vocabulary that can write any ASCII word."""
    rows = [*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS, *"0123456789.,!?#"]
    path = folder / "vocab.txt"
    path.write_text("\n".join(rows) + "\n")
    return path


def make_texts(number: int, seed: int = 0) -> list[str]:
    """Texts of 1 to 80 words, some of them twice."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 80))) + "." for _ in range(number)]
    return [rng.choice(texts[: i + 1]) if i % 10 == 9 else text for i, text in enumerate(texts)]


def write_sources(folder: Path, *, seed: int = 0) -> None:
    """Two web files of parquet, one of json lines with two bad lines in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        texts = make_texts(60, seed=seed + part)
        urls = [f"https://example.org/{part}/{i}" for i in range(len(texts))]
        table = pa.table({"content": texts, "url": urls})
        pq.write_table(table, folder / f"web-{part}.parquet", row_group_size=20)
    lines = [json.dumps({"text": text, "license": "MIT"}) for text in make_texts(40, seed=seed + 9)]
    (folder / "code.jsonl").write_text("\n".join([*lines[:20], "{", '{"text": 3}', *lines[20:]]))


def write_recipe(folder: Path, **changes: object) -> Path:
    """A recipe over write_sources' files: two phases of 16 and 32 tokens."""
    phase = {
        "max_length": 16,
        "row_tokens": 64,
        "loader": {"mixture": {"all": 1.0}, "batch_tokens": 128},
        "schedule": {"tokens": 1280, "learning_rate": 0.001},
    }
    recipe = {
        "name": "test",
        "tokenizer": str(folder / "vocab.txt"),
        "sources": {
            "web": {
                "kind": "web", "path": str(folder / "in"), "format": "parquet",
                "columns": {"text": "content", "url": "url"}, "licence": "CC0",
            },
            "code": {
                "kind": "code", "path": str(folder / "in"), "format": "jsonl",
                "columns": {"licence": "license"},
            },
        },
        "filters": {"length": {"min_words": 5}},
        "packing": {"overlong": "split", "bucket_edges": [16, 32]},
        "held_out": 0.1,
        "phases": {
            "phase1": phase,
            "phase2": {**phase, "max_length": 32, "row_tokens": 128,
                       "loader": {"mixture": {"all": 0.5, "16+": 0.5}, "batch_tokens": 256}},
        },
        "training": {"preset": "tiny", "micro_batch_tokens": 128},
        **changes,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def prepare(folder: Path, **changes: object) -> Path:
    """Sources, vocabulary and recipe in a folder; the recipe's path."""
    write_sources(folder / "in")
    write_vocabulary(folder)
    return write_recipe(folder, **changes)


def build(recipe: Path, run: Path, *arguments: str) -> int:
    """The exit code of an inline build."""
    return main(["build", str(recipe), "--out", str(run), "--engine", "inline", *arguments])


def root(run: Path) -> str:
    return read_listing(run).root


def decisions(run: Path) -> list[dict]:
    return ds.dataset(run / "decisions", format="parquet").to_table().to_pylist()


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the code catches it, and nothing is tidied up after it."""


class Lives:
    """Lets a build finish so many files, then kill it."""

    def __init__(self, monkeypatch):
        self.left, self.dead = -1, False
        replace, unlink = Path.replace, Path.unlink

        def replace_or_die(path, target):
            if self.left == 0:
                self.dead = True
                raise Killed
            self.left -= 1
            return replace(path, target)

        def unlink_if_alive(path, missing_ok=False):
            if not self.dead:
                unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "replace", replace_or_die)
        monkeypatch.setattr(Path, "unlink", unlink_if_alive)

    def run(self, files, build):
        """Whether the build came to its end before it had finished this many files."""
        self.left, self.dead = files, False
        try:
            build()
        except Killed:
            self.dead = False
            return False
        return True


def write_position(run, phase, step):
    """As much of a checkpoint as says how far training has come."""
    folder = run / "training" / "checkpoints" / f"step-{step:07d}"
    position = {"phase": phase, "phase_step": step, "step": step, "tokens": 0, "real_tokens": 0}
    write_json(folder / "state.json", {"position": position})
    write_json(folder / "complete.json", {"state.json": sha256_file(folder / "state.json")})
