"""Changes to the text itself: repair of encodings, personal data."""
