"""The parts of BERT's tokenizer around its vocabulary."""

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's special tokens, in the order of their ids in a new vocabulary."""


def add_bert_parts(
    tokenizer: Tokenizer,
    *,
    lowercase: bool = True,
    strip_accents: bool | None = None,
    handle_chinese_chars: bool = True,
) -> None:
    """Add BERT's normalizer, pre-tokenizer and decoder; accents go with the case unless said."""
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=handle_chinese_chars, strip_accents=strip_accents, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()


def add_bert_template(tokenizer: Tokenizer) -> None:
    """Put [CLS] before and [SEP] after a text, where the vocabulary has both."""
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    if first is not None and last is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", first), ("[SEP]", last)],
        )
