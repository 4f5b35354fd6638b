"""What filters and edits read besides their settings: models, lists, the answers of libraries.

Their hashes and versions are part of the mill's key, so that another model under the same path, or
another spaCy, mills anew.
"""

from importlib.metadata import version
from pathlib import Path

from tokenmill.pipeline.edits.config import EditConfig
from tokenmill.pipeline.filters import FilterConfig
from tokenmill.pipeline.rules.language import model_path
from tokenmill.pipeline.rules.url import lists_key
from tokenmill.shards.files import sha256_file


def asset_hashes(filters: FilterConfig, edits: EditConfig) -> dict[str, str]:
    """By name: the SHA-256 of each file, the version of each library that has a say.

    Raises:
        RecipeError: a model or list that a rule names is not there.
    """
    models = {f"classifiers.{name}": Path(rule.model) for name, rule in filters.classifiers.items()}
    if filters.language:
        models["language"] = model_path(filters.language.model)
    hashes = {name: sha256_file(path) for name, path in models.items()}
    if filters.url:
        hashes["url lists"] = lists_key(filters.url)
    libraries = set()
    if filters.gopher or filters.c4 or filters.fineweb:
        libraries |= {"spacy", "datatrove"}
    if edits.repair:
        libraries.add("ftfy")
    if edits.pii or filters.datatrove:
        libraries.add("datatrove")
    return hashes | {name: version(name) for name in sorted(libraries)}
