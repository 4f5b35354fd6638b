"""From sources to shards: fetch, mill, dedup, settle, pack; plan, engines, report."""
