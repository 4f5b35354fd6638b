"""How often a sample's 90 % intervals hold the truth, over many seeds.

    python benchmarks/forecast.py --data FOLDER --tokenizer FOLDER_OR_FILE [--share 0.1]
        [--seeds 200] [--units 0]

FOLDER holds RefinedWeb-shaped parquet. The whole is built once, with quality rules, so that every
document's fate is known; then samples are drawn from it by the code that `build --sample` uses. A
document's fate does not depend on the others before duplicates leave, so this is what as many
sample builds would measure. With --units N neighbouring documents make up N units, as those of a
large corpus would, and samples are of units.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from tokenmill.pipeline.build import build
from tokenmill.pipeline.documents import Documents
from tokenmill.pipeline.engine import InlineEngine
from tokenmill.pipeline.estimate import Drawn, interval, total
from tokenmill.pipeline.measures import decision_batches, measure, one_batch
from tokenmill.pipeline.read import read_unit
from tokenmill.pipeline.sample import DocumentSample, Sample, draw_names, is_drawn, text_bytes
from tokenmill.recipe import load_recipe
from tokenmill.shards.arrays import as_numpy
from tokenmill.shards.table import table

RECIPE = Path(__file__).parent.parent / "manifests" / "neobert.yaml"
RULES = ("filters.gopher={}", "filters.length={}", "text=drop", "packing.overlong=split")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--units", type=int, default=0)
    arguments = parser.parse_args()
    changes = [
        f"sources.refinedweb.path={arguments.data}", f"tokenizer={arguments.tokenizer}", *RULES,
    ]  # fmt: skip
    corpus = load_recipe(RECIPE, changes).corpus()
    with tempfile.TemporaryDirectory() as folder:
        built = build(corpus, Path(folder) / "run", InlineEngine)
        files = sorted(p.relative_to(built.run) for p in built.run.glob("decisions/**/*.parquet"))
        whole = one_batch(list(decision_batches(built.run, map(str, files))))
        source = corpus.sources["refinedweb"]
        items = (item for unit in built.stages.units for item in read_unit(unit, source))
        lengths = np.concatenate([text_bytes(i.texts) for i in items if isinstance(i, Documents)])
    doc_ids = as_numpy(whole["doc_id"])
    everything = measure(whole, corpus)
    truth = {name: one.values.sum() for name, one in everything.items()}
    unit = np.arange(len(doc_ids)) * max(arguments.units, 1) // len(doc_ids)
    sizes = {str(u): int(s) for u, s in enumerate(np.bincount(unit, lengths))}
    inside: dict[str, int] = defaultdict(int)
    width: dict[str, float] = defaultdict(float)
    error: dict[str, float] = defaultdict(float)
    for seed in range(arguments.seeds):
        chosen, share = draw_names(sizes, 32, Sample(share=arguments.share, seed=seed))
        numbers = np.array(sorted(map(int, chosen)))
        seen = np.isin(unit, numbers)
        milled = seen & is_drawn(doc_ids, share or DocumentSample(share=1.0, seed=seed))
        drawn = Drawn(
            cluster_bytes=np.array([sizes[str(n)] for n in numbers]),
            total_bytes=sum(sizes.values()),
            seen=lengths[seen],
            milled=lengths[milled],
            cluster=np.searchsorted(numbers, unit[milled]),
        )
        for name, one in everything.items():
            guess = interval(total(drawn, one.values[milled], one.by), of_one=one.of_one)
            inside[name] += guess.low - 0.5 <= truth[name] <= guess.high + 0.5
            width[name] += (guess.high - guess.low) / 2 / max(truth[name], 1)
            error[name] += (guess.value - truth[name]) / max(truth[name], 1)
    header = ("measure", "truth", "inside", "half width", "mean error")
    rows = [
        (name, f"{truth[name]:,.0f}", f"{inside[name] / arguments.seeds:.1%}",
         f"{width[name] / arguments.seeds:.2%}", f"{error[name] / arguments.seeds:+.2%}")
        for name in everything
    ]  # fmt: skip
    print(table(header, rows))
    held = sum(inside.values()) / len(inside) / arguments.seeds
    print(f"{held:.1%} of {len(inside) * arguments.seeds:,} intervals held the truth")


if __name__ == "__main__":
    main()
