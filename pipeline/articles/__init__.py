"""Articles as publishers and authors write them, JATS XML and LaTeX, made into plain text."""
