"""What the commands do that look into a finished run.

The command line imports this file when one of them is called. They need little in common, so what
takes long to import is imported where it is used.
"""

import argparse
import dataclasses
import sys

from tokenmill.errors import RecipeError
from tokenmill.shards.listing import read_listing
from tokenmill.shards.listing import verify as find_damage
from tokenmill.shards.run import read_run


def inspect(arguments: argparse.Namespace) -> int:
    from tokenmill.pipeline import inspection

    run = arguments.folder
    if arguments.step is None and (arguments.text or arguments.world_size):
        raise RecipeError("--text and --world-size are of a step: give --step with them")
    if arguments.document is not None:
        print(inspection.describe_document(run, arguments.document))
    elif arguments.row is not None:
        print(inspection.describe_row(run, chosen_phase(arguments), arguments.row))
    elif arguments.step is not None:
        from tokenmill.seeing import describe_step

        print(
            describe_step(
                run,
                chosen_phase(arguments),
                arguments.step,
                world_size=arguments.world_size or 1,
                whole_text=arguments.text,
            )
        )
    else:
        print(inspection.describe_run(run))
    return 0


def whatif(arguments: argparse.Namespace) -> int:
    from tokenmill.pipeline.whatif import what_if
    from tokenmill.recipe import load_recipe

    read_run(arguments.folder)
    path = arguments.folder / "recipe.yaml"
    old, new = load_recipe(path), load_recipe(path, arguments.set)
    if dataclasses.replace(new, filters=old.filters) != old:
        raise RecipeError(
            f"--set {' '.join(arguments.set)}: only filters.* can be tried on a finished run. "
            "Build another run for the rest."
        )
    print(what_if(arguments.folder, old.corpus(), new.filters))
    return 0


def why(arguments: argparse.Namespace) -> int:
    from tokenmill.pipeline.why import why as explain_why
    from tokenmill.recipe import load_recipe

    read_run(arguments.folder)
    recipe = load_recipe(arguments.folder / "recipe.yaml")
    print(explain_why(arguments.folder, recipe.corpus(), arguments.document))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    damage = list(find_damage(arguments.folder))
    for line in damage:
        print(line)
    listing = read_listing(arguments.folder)
    print(f"{len(listing.outputs):,} files checked, {len(damage)} wrong")
    if damage:
        print("Delete what is wrong and build again; what is whole is kept.", file=sys.stderr)
        return 1
    print(listing.root)
    return 0


def chosen_phase(arguments: argparse.Namespace) -> str:
    """The phase that --phase names, or the run's first."""
    return arguments.phase or next(iter(read_run(arguments.folder).phases))
