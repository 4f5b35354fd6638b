"""Decontamination: what evaluation sets hold is found in the tokens of documents and taken out."""
