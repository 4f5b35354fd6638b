"""fastText's supervised models, answered from sums that are kept for each word."""
