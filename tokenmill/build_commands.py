"""What the commands around a build do: load, call, print."""

import argparse
import os

from tokenmill.errors import RecipeError
from tokenmill.outline import training_outline
from tokenmill.pipeline import build as building
from tokenmill.pipeline.documents import SetAside
from tokenmill.pipeline.engine import Engine, InlineEngine
from tokenmill.pipeline.forecast import plan_report
from tokenmill.pipeline.generations import Growth
from tokenmill.pipeline.plan import Unreadable
from tokenmill.pipeline.report import report
from tokenmill.pipeline.sample import Sample, parse_share
from tokenmill.pipeline.sample_run import build_sample, compared, forecast_table
from tokenmill.pipeline.texts import source_texts
from tokenmill.recipe import dump_recipe, load_recipe
from tokenmill.scale import load_scaled
from tokenmill.shards.files import writable
from tokenmill.tokenizer.train import train_tokenizer as train_on
from tokenmill.training.position import newest_position


def build(arguments: argparse.Namespace) -> int:
    keep = arguments.keep_downloads
    changes = [*arguments.set, *([f"downloads.keep={keep}"] if keep else [])]
    recipe = load_scaled(arguments.recipe, changes, arguments.scale)
    corpus, resolved = recipe.corpus(), dump_recipe(recipe)
    workers = 1 if arguments.engine == "inline" else arguments.workers or os.cpu_count() or 1
    if arguments.sample is not None:
        sample = Sample(share=parse_share(arguments.sample))
        built, forecast = build_sample(
            corpus, arguments.out, lambda: _engine(arguments), recipe=resolved, sample=sample
        )
        print(report(built), forecast_table(forecast, workers), sep="\n")
        return 1 if built.num_set_aside else 0
    growth = None
    if arguments.grow is not None:
        reached = newest_position(arguments.out / "training" / "checkpoints")
        growth = Growth(phase=arguments.grow, reached=reached)
    built = building.build(
        corpus, arguments.out, lambda: _engine(arguments), recipe=resolved, growth=growth
    )
    print(report(built))
    beside = compared(corpus, built, resolved)
    if beside:
        print(forecast_table(beside, workers))
    elif (arguments.out / "forecast.json").exists():
        print(f"{arguments.out / 'forecast.json'} is of another recipe and was not compared")
    return 1 if built.num_set_aside or built.changed else 0


def plan(arguments: argparse.Namespace) -> int:
    recipe = load_scaled(arguments.recipe, arguments.set, arguments.scale)
    print(plan_report(recipe.corpus(), arguments.out))
    print()
    print(training_outline(recipe))
    return 0


def train_tokenizer(arguments: argparse.Namespace) -> int:
    recipe = load_recipe(arguments.recipe, arguments.set)
    if recipe.tokenizer_training is None:
        raise RecipeError(
            f"{arguments.recipe}: tokenizer_training is missing. Give its kind and vocab_size."
        )
    lost: list[SetAside | Unreadable] = []
    with writable(arguments.out):
        texts = source_texts(recipe.sources, arguments.out, lost)
        train_on(texts, recipe.tokenizer_training, arguments.out)
    print(f"tokenizer  {arguments.out / 'tokenizer.json'}")
    if lost:
        first = f"{lost[0].source}/{lost[0].file}: {lost[0].error}"
        print(f"{len(lost):,} records or files could not be read, for instance {first}")
    return 1 if lost else 0


def _engine(arguments: argparse.Namespace) -> Engine:
    if arguments.engine == "inline":
        return InlineEngine()
    from tokenmill.pipeline.ray_engine import RayEngine  # Ray takes a second to import

    return RayEngine(workers=arguments.workers, address=arguments.address)
