"""Folders of Hugging Face: a model's shape, names and tokenizer in the words of transformers.

`architecture.py` and `weights.py` translate both ways and import nothing of transformers, so that
exporting needs it as little as training does. `modeling_neobert.py` is never imported by us: it is
copied into folders whose architecture transformers does not have.
"""
