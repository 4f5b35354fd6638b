"""A recipe: one YAML of manifests/ as typed settings.

    recipe = load_recipe(Path("manifests/neobert.yaml"), ["sources.refinedweb.path=data"])

A recipe may name another to start from with `use: ettin-150m.yaml`, a source a file with
`use: sources/refinedweb.yaml`, both taken from the recipe's folder, and change any key of it.
`--set a.b=value` changes or adds one key, the value read as YAML; no value is the empty text. Paths
are taken from the working folder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tokenmill.errors import RecipeError
from tokenmill.loader.config import LoaderConfig
from tokenmill.pipeline.corpus import Corpus
from tokenmill.pipeline.decontaminate.config import DecontaminationConfig
from tokenmill.pipeline.dedup.config import DedupConfig
from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.fetch.address import shown
from tokenmill.pipeline.fetch.in_turn import DownloadConfig
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.pack import PackingConfig, RowShape, pack_name
from tokenmill.pipeline.sources import SourceConfig
from tokenmill.shards.buckets import Buckets
from tokenmill.shards.run import PhaseInfo
from tokenmill.shards.settings import apply_change, read_settings, to_mapping
from tokenmill.tokenizer.train import TokenizerTrainingConfig
from tokenmill.training.config import ScheduleConfig, TrainingConfig
from tokenmill.training.encoder_config import EncoderConfig, RopeConfig
from tokenmill.training.presets import encoder_config


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseConfig:
    """One phase of training."""

    max_length: int
    """The longest sequence in tokens, special tokens counted."""
    row_tokens: int = 16_384
    """Tokens in a row, at least 4 x max_length, so that rows can be filled, and at most
    packing.max_sequences x max_length: max_length where that is 1."""
    token_budget: int | None = None
    """About how many tokens of documents the phase's pack takes of each generation of the corpus,
    drawn by content hash; those of held-out documents are not counted. None: all."""
    loader: LoaderConfig
    schedule: ScheduleConfig
    rope: dict[str, Any] = field(default_factory=dict)
    """Changes to the model's rotary positions in this phase, e.g. {theta: 160_000}."""

    @property
    def shape(self) -> RowShape:
        return RowShape(self.max_length, self.row_tokens, self.token_budget)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything from the sources to the learning rate."""

    name: str
    tokenizer: str
    """A folder, a tokenizer.json or vocab.txt, or a hub id."""
    sources: dict[str, SourceConfig]
    phases: dict[str, PhaseConfig]
    """In the order in which they are trained."""
    training: TrainingConfig
    filters: FilterConfig = field(default_factory=FilterConfig)
    edits: EditConfig = field(default_factory=EditConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    decontamination: DecontaminationConfig | None = None
    """Evaluation sets whose items no document may hold; null: none."""
    retracted: tuple[str, ...] = ()
    """Files of documents that are left out, with their duplicates: overlay.jsonl of a run, or a
    doc_id a line. What `tokenmill retract` took back from this very run is left out anyway."""
    packing: PackingConfig = field(default_factory=PackingConfig)
    text: Literal["keep", "drop"] = "keep"
    """Whether the cleaned text of kept documents stays in the run."""
    held_out: float = 0.001
    """Share of documents kept for evaluation, chosen by content hash."""
    downloads: DownloadConfig = field(default_factory=DownloadConfig)
    """What becomes of the files of remote sources."""
    tokenizer_training: TokenizerTrainingConfig | None = None
    """For `tokenmill train-tokenizer`."""

    def __post_init__(self) -> None:
        if not self.sources or not self.phases:
            raise RecipeError("a recipe needs at least one source and one phase")
        if not 0 <= self.held_out < 1:
            raise RecipeError(f"held_out must be at least 0 and below 1, got {self.held_out}")
        for name in (*self.sources, *self.phases):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise RecipeError(
                    f"{name!r}: the name of a source or phase is letters, digits, - and _"
                )
        model = encoder_config(self.training.preset, self.training.model)
        if model.next_sentence and self.packing.sequences != "pairs":
            raise RecipeError(
                f"training.preset {self.training.preset} predicts whether two texts follow each "
                f"other, and packing.sequences: {self.packing.sequences} makes no pairs. Set it to "
                "pairs, or training.model.next_sentence to false"
            )
        for name, phase in self.phases.items():
            self._check_phase(name, phase, model)

    def _check_phase(self, name: str, phase: PhaseConfig, model: EncoderConfig) -> None:
        read_settings(RopeConfig, {**to_mapping(model.rope), **phase.rope}, f"phases.{name}.rope")
        if model.longest is not None and phase.max_length > model.longest:
            raise RecipeError(
                f"phases.{name}.max_length must be at most the {model.longest} learned positions "
                f"of training.preset {self.training.preset}, got {phase.max_length}. "
                "training.model.max_positions sets them"
            )
        if phase.max_length < 3:
            raise RecipeError(f"phases.{name}.max_length must be at least 3")
        if phase.token_budget is not None and phase.token_budget < 1:
            raise RecipeError(f"phases.{name}.token_budget must be at least 1, or null for all")
        least = min(4, self.packing.max_sequences)
        if phase.row_tokens < least * phase.max_length:
            raise RecipeError(
                f"phases.{name}.row_tokens must be at least {least} x max_length = "
                f"{least * phase.max_length}, got {phase.row_tokens}: shorter rows cannot be "
                "filled. For one sequence a row, padded, set packing.max_sequences to 1 and "
                "row_tokens to max_length"
            )
        most = self.packing.max_sequences * phase.max_length
        if phase.row_tokens > most:
            raise RecipeError(
                f"phases.{name}.row_tokens must be at most packing.max_sequences x max_length = "
                f"{most}, got {phase.row_tokens}: more would only be padding"
            )
        for subset in phase.loader.subsets:
            try:
                Buckets(self.packing.bucket_edges).of_subset(subset)
            except RecipeError as error:
                raise RecipeError(f"phases.{name}.loader.mixture: {error}") from None

    def corpus(self) -> Corpus:
        """What the pipeline needs to know."""
        return Corpus(
            name=self.name,
            sources=self.sources,
            tokenizer=self.tokenizer,
            filters=self.filters,
            edits=self.edits,
            dedup=self.dedup,
            decontamination=self.decontamination,
            retracted=self.retracted,
            packing=self.packing,
            text=self.text,
            held_out=self.held_out,
            downloads=self.downloads,
            shapes=tuple(dict.fromkeys(phase.shape for phase in self.phases.values())),
            phases={
                name: PhaseInfo(
                    pack=pack_name(self.packing, phase.shape),
                    loader=to_mapping(phase.loader),
                    schedule=to_mapping(phase.schedule),
                    rope=to_mapping(phase.rope),
                )
                for name, phase in self.phases.items()
            },
            training=to_mapping(self.training),
        )


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `a.b=value` changes.

    Raises:
        RecipeError: the file is missing or no YAML, or a setting in it is wrong, with its place.
    """
    mapping = _read_yaml(path)
    base = mapping.pop("use", None)
    if base is not None:
        mapping = _merged(_read_base(path, str(base)), mapping)
    return read_recipe(mapping, path, changes)


def read_recipe(mapping: dict[str, Any], path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that a mapping describes, after `a.b=value` changes.

    Args:
        mapping: is changed.
        path: the file it is of, named in messages; the files of its sources lie beside it.

    Raises:
        RecipeError: a setting is wrong, with its place.
    """
    before = mapping.get("sources")
    known = list(before) if isinstance(before, dict) else []
    for change in changes:
        apply_change(mapping, change)
    sources = mapping.get("sources")
    if isinstance(sources, dict):
        _refuse_half_a_source(path, sources, known)
        mapping["sources"] = {
            name: _with_base(path, name, source) for name, source in sources.items()
        }
    return read_settings(Recipe, mapping, str(path))


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: every default written out, signatures of addresses left out."""
    mapping = to_mapping(recipe)
    for source in mapping["sources"].values():
        source |= {key: shown(source[key]) for key in ("path", "file_list")}
    return yaml.safe_dump(mapping, sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        mapping = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file. Recipes stand in manifests/.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(mapping, dict):
        raise RecipeError(f"{path}: expected a mapping of settings, found {type(mapping).__name__}")
    return mapping


def _read_base(recipe: Path, name: str) -> dict[str, Any]:
    """The recipe that another starts from, the files of its sources named from anywhere."""
    base = recipe.parent / name
    try:
        mapping = _read_yaml(base)
    except RecipeError as error:
        raise RecipeError(f"{recipe}: use: {error}") from None
    if "use" in mapping:
        raise RecipeError(f"{recipe}: use: {base} starts from another recipe itself. Name that.")
    sources = mapping.get("sources")
    for source in sources.values() if isinstance(sources, dict) else ():
        if isinstance(source, dict) and "use" in source:
            source["use"] = str(base.parent.absolute() / str(source["use"]))
    return mapping


def _refuse_half_a_source(recipe: Path, sources: dict[str, Any], known: list[str]) -> None:
    """Raises RecipeError for a change to a source that the recipe has not: likely another name."""
    for name, source in sources.items():
        if name not in known and isinstance(source, dict) and not source.keys() & {"use", "kind"}:
            raise RecipeError(
                f"{recipe}: sources.{name}: expected one of {', '.join(known)}. A new source needs "
                "its kind, or use, too."
            )


def _with_base(recipe: Path, name: str, source: Any) -> Any:
    if not isinstance(source, dict) or "use" not in source:
        return source
    base = recipe.parent / str(source["use"])
    changes = {key: value for key, value in source.items() if key != "use"}
    try:
        return _merged(_read_yaml(base), changes)
    except RecipeError as error:
        raise RecipeError(f"{recipe}: sources.{name}.use: {error}") from None


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The base with the changes laid over it, key by key, down to single values."""
    both = {**base, **changes}
    for key in base.keys() & changes.keys():
        if isinstance(base[key], dict) and isinstance(changes[key], dict):
            both[key] = _merged(base[key], changes[key])
    return both
