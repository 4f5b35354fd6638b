"""The rules that let a document stay or go, one family a file.

Each file holds the settings of its family, `checks` that compare a signal with a setting, and a
function that measures the signals of a batch. checks.py judges them all alike.
"""
