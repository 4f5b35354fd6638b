"""Duplicates: which documents leave for another's sake, and which spans of tokens are cut."""
