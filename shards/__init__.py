"""The format on disk: rows of tokens in Arrow files, the manifest over them, and what a run says
of itself."""
