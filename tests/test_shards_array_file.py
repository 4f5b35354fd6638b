"""Arrays of a file are mapped, shared and private; anything but the whole file is none."""

import numpy as np
import pytest

from tokenmill.shards.array_file import open_arrays, save_arrays

ARRAYS = {
    "words": np.arange(7, dtype=np.uint64),
    "empty": np.zeros((0, 3), np.float32),
    "table": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
}


@pytest.fixture
def path(tmp_path):
    save_arrays(tmp_path / "learnt", ARRAYS)
    return tmp_path / "learnt"


def test_arrays_come_back_with_their_shapes_from_lines_of_memory(path):
    opened = open_arrays(path)
    assert opened.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert opened[name].dtype == array.dtype
        assert np.array_equal(opened[name], array)
        assert opened[name].ctypes.data % 64 == 0


def test_what_a_process_writes_stays_with_it(path):
    opened = open_arrays(path)
    opened["words"][0] = 99
    assert open_arrays(path)["words"][0] == 0


def test_an_open_file_outlives_the_one_that_takes_its_place(path):
    opened = open_arrays(path)
    save_arrays(path, {"words": np.full(3, 5)})
    assert np.array_equal(opened["words"], ARRAYS["words"])
    assert open_arrays(path)["words"].tolist() == [5, 5, 5]


def test_a_file_cut_anywhere_is_none(path):
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert open_arrays(path) is None


def test_a_file_with_a_changed_byte_is_none_or_the_same(path):
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        path.write_bytes(damaged)
        opened = open_arrays(path)
        if opened is not None:  # the byte filled up a line
            assert {n: a.tobytes() for n, a in opened.items()} == {
                n: a.tobytes() for n, a in ARRAYS.items()
            }


def test_a_missing_file_is_none(tmp_path):
    assert open_arrays(tmp_path / "none") is None
