"""Seals: every bit of a file counts, in every format, and what merely looks like a seal is none."""

import hashlib

import pytest

from whyfooled.images.seals import BLANK, is_whole, is_whole_file, seal, seal_file

CONTENT = f'{{"seal": "{BLANK}", "values": [1, 2]}} and a tail'.encode()


def test_the_seal_is_the_digest_of_the_file_with_a_blank_in_its_place():
    digest = hashlib.blake2b(CONTENT, digest_size=16).hexdigest().encode()
    assert seal(CONTENT) == CONTENT.replace(BLANK.encode(), b"blake2b:" + digest)
    assert is_whole(seal(CONTENT)) is True


def test_every_flipped_bit_is_noticed():
    sealed = seal(CONTENT)
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        # In its name it is no seal any more, which the format's version, in the same file, says that it must have.
        assert is_whole(bytes(damaged)) is not True, bit


@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b" ", lambda c: b" " + c, lambda c: c[:55] + c[56:]]
)
def test_a_file_that_is_shorter_or_longer_is_not_whole(change):
    assert is_whole(change(seal(CONTENT))) is False


def test_a_file_without_a_seal_is_neither_and_cannot_be_sealed():
    assert is_whole(b"no seal") is None
    with pytest.raises(ValueError, match="no place for a seal"):
        seal(b"no place")


def test_data_that_look_like_a_blank_or_a_seal_stay_as_they_are():
    other = seal(b"another file " + BLANK.encode())
    for content, at_end in ((CONTENT + BLANK.encode() + other, False), (BLANK.encode() + other + CONTENT, True)):
        sealed = seal(content, at_end=at_end)
        assert is_whole(sealed) is True
        place = CONTENT.index(BLANK.encode()) + (len(content) - len(CONTENT) if at_end else 0)
        assert sealed[:place] + BLANK.encode() + sealed[place + len(BLANK) :] == content
        assert is_whole(sealed.replace(b"values", b"valuez")) is False


def test_a_file_on_disk_is_sealed_and_checked_as_its_content_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    seal_file(path)
    assert path.read_bytes() == seal(CONTENT)
    assert is_whole_file(path) is True
    path.write_bytes(path.read_bytes()[:-1])
    assert is_whole_file(path) is False
    path.write_bytes(b"")
    assert is_whole_file(path) is False
