"""MathML as one line of plain characters: x^2, a_1, (a + b)/c, √(x). For formulas that come
without their TeX; layout that has no such form is written one after the other."""

from collections.abc import Sequence

from lxml import etree

MATHML = "{http://www.w3.org/1998/Math/MathML}"
_SIGNS = {"msup": "^", "msub": "_", "munder": "_", "msubsup": "_^", "munderover": "_^"}


def mathml_text(element: etree._Element) -> str:
    """The characters of a formula; its annotations are left out."""
    return " ".join(_text(element).split())


def _text(element: etree._Element) -> str:
    tag = str(element.tag).removeprefix(MATHML)
    if tag.startswith("annotation"):
        return ""
    parts = [_text(child) for child in element]
    if tag == "mfrac" and len(parts) == 2:
        return f"{_grouped(parts[0])}/{_grouped(parts[1])}"
    if tag in _SIGNS and len(parts) == len(_SIGNS[tag]) + 1:
        return parts[0] + "".join(_signed(tag, parts[1:]))
    if tag == "msqrt":
        return f"√{_grouped(''.join(parts))}"
    if tag in ("mtr", "mtd", "mspace"):
        parts.append(" ")
    return (element.text or "").strip() + "".join(parts)


def _signed(tag: str, parts: Sequence[str]) -> list[str]:
    pairs = zip(_SIGNS[tag], parts, strict=True)
    return [sign + _grouped(part) for sign, part in pairs if part.strip()]


def _grouped(text: str) -> str:
    text = text.strip()
    return text if len(text) == 1 or text.isalnum() else f"({text})"
