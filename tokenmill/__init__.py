"""Tokenmill mills raw text into packed token shards for encoder pretraining, and feeds them to
the GPU."""

__version__ = "0.1.0"
