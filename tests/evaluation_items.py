"""The words of a text by their definition, and tokenizers that know all of them."""

import json
import unicodedata
from functools import cache

from tokenizers import Tokenizer, models

from tokenmill.pipeline.decontaminate.folding import UNSPACED
from tokenmill.tokenizer import Encoder
from tokenmill.tokenizer.bert import BERT_SPECIAL, add_bert_parts, add_bert_template


@cache
def fold(text: str) -> str:
    """The words of a text, a space between them."""
    return " ".join("".join(map(_fold, text)).split())


@cache
def _fold(character: str) -> str:
    """A letter or digit without case and accents, nothing for a mark, else a space."""
    if ord(character) >= 0x20000:
        return f" {character} " if ord(character) < 0x40000 else " "
    category = unicodedata.category(character)
    if category[0] == "M":
        return ""
    if category[0] not in "LN":
        return " "
    lower = character.lower()
    plain = [c for c in unicodedata.normalize("NFD", lower) if unicodedata.category(c)[0] != "M"]
    letter = plain[0] if len(plain) == 1 else lower[0]
    is_word = unicodedata.name(character, "").startswith(UNSPACED)
    return f" {letter} " if is_word else letter


def letter_encoder() -> Encoder:
    """BERT's kind, with the pieces of any word of ASCII, é, ï, ç and я, and some words."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789яß中の"
    tokens = [*BERT_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    tokens += [chr(point) for point in range(0x21, 0x7F) if not chr(point).isalnum()]
    tokens += ["—", "the", "mill", "##er", "re", "##mill", "12"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=999)
    )
    add_bert_parts(tokenizer, lowercase=True, strip_accents=None, handle_chinese_chars=True)
    tokenizer.add_special_tokens(list(BERT_SPECIAL))
    add_bert_template(tokenizer)
    return Encoder(json.loads(tokenizer.to_str()), "letters")
