import numpy as np

from tokenmill.pipeline.rules.lines import TABLE_POINTS, break_bytes, code_point, space_bytes

CHARACTERS = [chr(point) for point in range(TABLE_POINTS) if not 0xD800 <= point < 0xE000]
START = np.uint64(0)


def encoded(character):
    return np.frombuffer(character.encode(), np.uint8)


def test_white_space_is_what_isspace_says():
    for character in CHARACTERS:
        data = encoded(character)
        assert space_bytes(data, START) == (len(data) if character.isspace() else 0)


def test_a_line_break_is_where_splitlines_cuts():
    spaces = [character for character in CHARACTERS if character.isspace()]
    assert {character for character in CHARACTERS if len(f"a{character}b".splitlines()) > 1} < {
        *spaces
    }
    for character in [*spaces, "\r\n"]:
        data = encoded(character + "b")
        cuts = len(f"a{character}b".splitlines()) == 2
        assert break_bytes(data, START, np.uint64(len(data))) == (len(data) - 1 if cuts else 0)


def test_bytes_are_read_as_code_points():
    for character in [
        *CHARACTERS[::97],
        "\x7f",
        "\x80",
        "\u07ff",
        "\u0800",
        "\uffff",
        "\U0010ffff",
    ]:
        data = encoded(character)
        assert code_point(data, START) == (ord(character), len(data))
