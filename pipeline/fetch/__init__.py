"""Fetch: the files of a source, wherever they are, listed alike and brought to the run.

    listing.py      what a source consists of: names, sizes, checksums, versions
    download.py     one file, by ranges over several connections, resumable after any kill
    stage.py        the stage of the build: one task for each file, or run of small files
    in_turn.py      which files must come now, and which may leave again

Local files are read where they are; nothing here copies them.
"""
