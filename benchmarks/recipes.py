"""Every published recipe at a reduced size, by one command each: what it comes to on one core.

    python benchmarks/recipes.py --data SAMPLES --scale 1e-7 [--recipes bert neobert] [--out FOLDER]

SAMPLES has refinedweb/ (parquet of its columns), code/ (parquet of The Stack's), science/jsonl/ and
tokenizers/ (bert-base-uncased, modernbert-base). Web text stands for Wikipedia, and ModernBERT's
words for RoBERTa's. Each recipe is a process of its own, `tokenmill pretrain` with one thread, from
text to its last phase's end; seconds are the processor's, building included, so that they hold on a
shared machine. ModernBERT-large is tiled from the base that was trained before it.

With the same --out a second run goes on where the first was stopped; its minutes are those of what
was left.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenmill.recipe import load_recipe
from tokenmill.shards.run import read_run
from tokenmill.shards.table import table
from tokenmill.training.config import TrainingConfig
from tokenmill.training.log import HeldOutLine, StepLine, latest, read_log
from tokenmill.training.model import build_model, num_parameters

MANIFESTS = Path(__file__).parent.parent / "manifests"
PUBLISHED = (
    "bert", "bert-large", "spanbert", "roberta", "roberta-large", "nomicbert", "neobert",
    "modernbert-base", "modernbert-large", "ettin-17m", "ettin-32m", "ettin-68m", "ettin-150m",
    "ettin-400m", "ettin-1b",
)  # fmt: skip
HEADER = (
    "recipe", "parameters", "steps", "tokens", "minutes", "GB", "first loss", "held out, last",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scale", default="1e-7")
    parser.add_argument("--recipes", nargs="+", choices=PUBLISHED, default=PUBLISHED)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.recipes:
            run = (arguments.out or Path(folder)) / name
            settings = settings_of(name, arguments.data.absolute(), run)
            minutes, gigabytes = pretrain(name, run, arguments.scale, settings)
            rows.append((name, *figures(run, minutes, gigabytes)))
            print(table(HEADER, rows[-1:]), flush=True)
    print(f"\n{table(HEADER, rows)}")


def settings_of(name: str, data: Path, run: Path) -> list[str]:
    """A recipe's places in SAMPLES, as `a.b=value`."""
    recipe = load_recipe(MANIFESTS / f"{name}.yaml")
    web = data / "refinedweb"
    of_source = {
        "web": [f"path={web}"],
        "refinedweb": [f"path={web}"],
        "wikipedia": [f"path={web}", "columns.text=content", "columns.id=url"],
        "code": [f"path={data / 'code'}"],
        "science": [f"path={data / 'science' / 'jsonl'}"],
    }
    settings = [
        f"sources.{source}.{each}" for source in recipe.sources for each in of_source[source]
    ]
    words = "bert-base-uncased" if "google-bert" in recipe.tokenizer else "modernbert-base"
    settings.append(f"tokenizer={data / 'tokenizers' / words}")
    base = run.with_name("modernbert-base") / "training"
    if name == "modernbert-large" and base.exists():
        exported = run.with_name("modernbert-base-exported")
        command = [sys.executable, "-m", "tokenmill", "export", str(base), "--to", str(exported)]
        if not exported.exists():
            subprocess.run(command, check=True)
        settings.append(f"training.tile_from={exported}")
    return settings


def pretrain(name: str, run: Path, scale: str, settings: list[str]) -> tuple[float, float]:
    """Processor minutes and the most memory, 10^9 bytes, of the one command."""
    recipe = str(MANIFESTS / f"{name}.yaml")
    command = [sys.executable, "-m", "tokenmill", "pretrain", recipe, "--out", str(run)]
    command += ["--scale", scale, "--engine", "inline", "--device", "cpu", "--threads", "1"]
    command += [part for setting in settings for part in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) / 60, usage.ru_maxrss * 1024 / 1e9


def figures(run: Path, minutes: float, gigabytes: float) -> tuple[str, ...]:
    """A line of the table, from the run's own log."""
    info = read_run(run)
    training = TrainingConfig(**info.training)
    lines = latest(read_log(run / "training" / "log.jsonl"))
    steps = [line for line in lines if isinstance(line, StepLine)]
    held_out = [line for line in lines if isinstance(line, HeldOutLine) and line.subset == "all"]
    last = [max(line.step for line in steps if line.phase == phase) for phase in info.phases]
    of_phase = [now - before for before, now in zip([0, *last], last, strict=False)]
    return (
        f"{num_parameters(build_model(training.encoder(info.tokenizer))):,}",
        " + ".join(map(str, of_phase)),
        f"{steps[-1].tokens:,}",
        f"{minutes:.1f}",
        f"{gigabytes:.1f}",
        f"{steps[0].loss:.2f}",
        f"{held_out[-1].loss:.2f}",
    )


if __name__ == "__main__":
    main()
