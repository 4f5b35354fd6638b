"""What datatrove calls the reasons for which its filters drop a document."""

GOPHER_REPETITION = {
    "gopher.min_characters": "empty",
    "gopher.max_dup_paragraph_fraction": "dup_para_frac",
    "gopher.max_dup_paragraph_char_fraction": "dup_para_char_frac",
    "gopher.max_dup_line_fraction": "dup_line_frac",
    "gopher.max_dup_line_char_fraction": "dup_line_char_frac",
    **{f"gopher.max_top_{n}_gram_fraction": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"gopher.max_dup_{n}_gram_fraction": f"duplicated_{n}_n_grams" for n in range(5, 11)},
}
GOPHER_QUALITY = {
    "gopher.min_words": "gopher_short_doc",
    "gopher.max_words": "gopher_long_doc",
    "gopher.min_mean_word_length": "gopher_below_avg_threshold",
    "gopher.max_mean_word_length": "gopher_above_avg_threshold",
    "gopher.max_hash_ratio": "gopher_too_many_hashes",
    "gopher.max_ellipsis_ratio": "gopher_too_many_ellipsis",
    "gopher.max_bullet_line_fraction": "gopher_too_many_bullets",
    "gopher.max_ellipsis_line_fraction": "gopher_too_many_end_ellipsis",
    "gopher.min_alpha_word_fraction": "gopher_below_alpha_threshold",
    "gopher.min_stop_words": "gopher_enough_stop_words",
}
C4 = {
    "c4.drop_lorem_ipsum": "lorem_ipsum",
    "c4.drop_curly_bracket": "curly_bracket",
    "c4.min_sentences": "too_few_sentences",
}
FINEWEB = {
    "fineweb.min_lines": "empty",
    "fineweb.min_line_punctuation_fraction": "line_punct_ratio",
    "fineweb.max_short_line_fraction": "short_line_ratio",
    "fineweb.max_char_duplicate_fraction": "char_dup_ratio",
    "fineweb.max_new_line_ratio": "list_ratio",
}
URL = {
    "url.listed_domain": "domain",
    "url.listed_subdomain": "subdomain",
    "url.listed_url": "url",
    "url.banned_word": "hard_blacklisted",
    "url.max_soft_words": "soft_blacklisted",
    "url.banned_subword": "blacklisted_subword",
}
DATATROVE_NAMES = {**URL, **GOPHER_REPETITION, **GOPHER_QUALITY, **C4, **FINEWEB}
"""By our reason."""
