"""Generations: how a corpus grows while it is trained on.

    RUN/generations.json    which files are of which generation, and the first phase that reads each

    tokenmill build RECIPE --out RUN                  generation 0: the files of the first build
    tokenmill build RECIPE --out RUN --grow phase2    generation 1: those that have come since

A generation is a set of files, by source and name. Units, pack groups and so shards never hold two
of them, duplicates leave for the sake of an earlier generation and never the other way round, and a
phase reads the shards of its generation and those before. So what an earlier phase has read keeps
its path, its bytes and its order, and a state of it goes on.

The file is an input, like the recipe: a build elsewhere with this file, the recipe and the same
sources has the same root. With one generation it only remembers what a finished build has read, and
a later build with other files packs everything anew. The price of growing is a last row that is not
full for each bucket of each generation.

What a generation's own bytes still depend on is reported when it happens, not prevented: documents
taken back (`tokenmill retract`), another recipe, files that changed or left, and evaluation texts
that grew common (`common_documents` counts the whole corpus).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from tokenmill.errors import FormatError, RecipeError, RunError
from tokenmill.shards.files import read_json, write_json
from tokenmill.shards.manifest import FORMAT_VERSION, Manifest, check_version
from tokenmill.shards.run import PhaseInfo
from tokenmill.shards.settings import read_settings, to_mapping


class Named(Protocol):
    """A file of a source, listed or at hand."""

    @property
    def name(self) -> str: ...


File = TypeVar("File", bound=Named)
Names = Mapping[str, Sequence[Named]]
"""The files of each source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """Files that came together."""

    phase: str
    """The first phase that reads them; of the first generation, the recipe's first."""
    files: dict[str, tuple[str, ...]]
    """Their names, by source."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What is asked for: files that came since are read from a phase on."""

    phase: str
    reached: tuple[str, int] | None = None
    """The phase in which training stands, and its next step; None: it has not begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generations:
    """How a corpus has grown."""

    format_version: int = FORMAT_VERSION
    generations: tuple[Generation, ...]

    @property
    def has_grown(self) -> bool:
        return len(self.generations) > 1

    def split(self, source: str, files: Sequence[File]) -> list[list[File]]:
        """The files of a source, generation by generation; all, where there is but one."""
        if not self.has_grown:
            return [list(files)]
        of_file = {
            name: number
            for number, generation in enumerate(self.generations)
            for name in generation.files.get(source, ())
        }
        parts: list[list[File]] = [[] for _ in self.generations]
        for file in files:
            parts[of_file[file.name]].append(file)
        return parts

    def of_phases(self, phases: Mapping[str, PhaseInfo]) -> dict[str, PhaseInfo]:
        """Phases with the generation that each reads."""
        names = list(phases)
        firsts = [names.index(generation.phase) for generation in self.generations[1:]]
        return {
            name: replace(phase, generation=sum(first <= place for first in firsts))
            for place, (name, phase) in enumerate(phases.items())
        }


def generations_of(
    run: Path, listed: Names, phases: Sequence[str], growth: Growth | None
) -> Generations:
    """What a build is to make of its files; nothing is written.

    Args:
        listed: the files of each source, as they are now.
        phases: of the recipe, in order.
        growth: None: the corpus does not grow now.

    Raises:
        RunError: it is to grow and was never built, or it has grown before and files have come that
            are in no generation.
        RecipeError: there is no such phase, or it cannot read what has come.
    """
    known = read_generations(run)
    if growth:
        if known is None:
            raise RunError(
                f"{run}: --grow {growth.phase}: no finished build there that could grow. "
                "Build it first, without --grow."
            )
        _check_growth(known, phases, growth)
    if known is None or not (known.has_grown or growth):
        return Generations(generations=(Generation(phase=phases[0], files=_names(listed)),))
    for generation in known.generations[1:]:
        if generation.phase not in phases:
            raise RecipeError(
                f"{_path(run)}: a generation is read from {generation.phase} on, which is no phase "
                f"of the recipe: {', '.join(phases)}. Bring it back, or delete the file to pack "
                "everything anew."
            )
    new = _newer(known, listed)
    if not new:
        return known
    if growth is None:
        source, names = next(iter(new.items()))
        raise RunError(
            f"{run}: {sum(map(len, new.values())):,} files are of no generation, for instance "
            f"{source}/{names[0]}. Say from which phase on they are read, with --grow PHASE; or "
            f"delete {_path(run)} to pack everything anew, for phases that start anew."
        )
    added = Generation(phase=growth.phase, files=new)
    return replace(known, generations=(*known.generations, added))


def planned_generations(run: Path, listed: Names, phases: Sequence[str]) -> tuple[Generations, int]:
    """For a plan: what a build would make of its files if those that have come since the last were
    read by the last phase, and how many of them no generation has."""
    known = read_generations(run)
    if known is None or not known.has_grown:
        return generations_of(run, listed, phases, None), 0
    new = _newer(known, listed)
    added = [Generation(phase=phases[-1], files=new)] if new else []
    generations = replace(known, generations=(*known.generations, *added))
    return generations, sum(map(len, new.values()))


def read_generations(run: Path) -> Generations | None:
    """The generations of a run; None before it was finished once.

    Raises:
        FormatError: the file is damaged, or of another version.
    """
    path = _path(run)
    if not path.exists():
        return None
    mapping = read_json(path)
    check_version(path, mapping)
    try:
        return read_settings(Generations, mapping, str(path))
    except RecipeError as error:
        raise FormatError(f"{error} Bring the file back, or delete it to build anew.") from None


def write_generations(run: Path, generations: Generations) -> None:
    write_json(_path(run), to_mapping(generations))


def changed_shards(before: Manifest, after: Manifest) -> Iterator[str]:
    """A line for each generation of which shards have changed since the last build, for people.

    Args:
        before: as the run had it; what `after` has more of is new and no change.
    """
    now = {shard.path: shard for shard in after.shards}
    for generation in sorted({shard.generation for shard in before.shards}):
        old = [shard for shard in before.shards if shard.generation == generation]
        same = [shard.path in now and now[shard.path].sha256 == shard.sha256 for shard in old]
        sequences = sum(s.sequences for s in after.shards if s.generation == generation)
        if not all(same):
            yield (
                f"pack {before.pack}: {same.count(False):,} of {len(old):,} shards of generation "
                f"{generation} are not what they were; {sum(s.sequences for s in old):,} sequences "
                f"were in them, {sequences:,} are now"
            )


def _check_growth(known: Generations, phases: Sequence[str], growth: Growth) -> None:
    if growth.phase not in phases:
        raise RecipeError(
            f"--grow {growth.phase}: no such phase. The recipe has {', '.join(phases)}."
        )
    wanted = phases.index(growth.phase)
    if not wanted:
        raise RecipeError(
            f"--grow {growth.phase}: the first phase reads what was there from the start. Give a "
            f"later phase of {', '.join(phases)}, or build without --grow to pack everything anew."
        )
    last = known.generations[-1].phase
    if last in phases and wanted < phases.index(last):
        raise RecipeError(
            f"--grow {growth.phase}: generation {len(known.generations) - 1} is read from {last} "
            f"on, and what comes later cannot be read before it. Give {last} or a later phase."
        )
    if growth.reached and growth.reached[0] in phases:
        phase, step = growth.reached
        if (phases.index(phase), step) > (wanted, 0):
            raise RecipeError(
                f"--grow {growth.phase}: training stands at {phase}:{step}, and what was read "
                "never changes. Give a later phase."
            )


def _newer(known: Generations, listed: Names) -> dict[str, tuple[str, ...]]:
    """The files of no generation, by source."""
    new = {}
    for source, names in _names(listed).items():
        old = {name for each in known.generations for name in each.files.get(source, ())}
        more = tuple(name for name in names if name not in old)
        if more:
            new[source] = more
    return new


def _names(listed: Names) -> dict[str, tuple[str, ...]]:
    return {source: tuple(file.name for file in files) for source, files in listed.items()}


def _path(run: Path) -> Path:
    return run / "generations.json"
