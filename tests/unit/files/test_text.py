"""JSON and TOML have bounds, and a sealed object knows its own text."""

import json
from pathlib import Path

import pytest

from harness.files.text import (
    MOST_DEPTH,
    has_seal,
    parse_json,
    parse_object,
    parse_toml,
    read_toml,
    sealed,
    unsealed,
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" * 100_000, "nested more than 32 deep"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 32 deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than 32 deep"),
        ("NaN", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "is not finite"),
        ('{"a": [1, ' + "9" * 19 + "]}", "more than 18 digits"),
        ("9" * 5000, "digits"),
        ("", "Expecting value"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "Expecting"),
    ],
)
def test_json_has_bounds(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_json(text.encode())


def test_json_within_its_bounds_is_read() -> None:
    value: object = [1.5, -(10**17), None, "\ud800", True, {}]
    for _ in range(MOST_DEPTH - 3):
        value = {"a": value}
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("text", ['{"a":1}', '{\n "a": 1,\n "b": [\n  2\n ]\n}\n'])
def test_every_flipped_bit_of_a_sealed_object_is_found(text: str) -> None:
    content = (sealed(text) + "\n").encode()
    assert unsealed(content) == json.loads(text)
    flips = 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = unsealed(bytes(flipped))
        except ValueError:
            flips += 1
        else:  # of the space around it
            assert found == json.loads(text)
    assert flips > 8 * len(content) - 20


def test_an_object_without_a_checksum_says_so() -> None:
    assert not has_seal(b'{"a": 1}')
    with pytest.raises(ValueError, match="has no checksum"):
        unsealed(b'{"a": 1}')
    with pytest.raises(ValueError, match="not a JSON object"):
        parse_object(b"[1]")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a = " + "[" * 100_000, "nested more than 32 deep"),
        ("a = " + "[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("a = " + "{b = " * 100_000, "nested more than 32 deep"),
        (".".join(["a"] * 100) + " = 1", "nested more than 32 deep"),
        (".".join(["a"] * 20_000) + " = 1", r"more than 200 dots \(at line 1\)"),
        ("b = 1\n[" + ".".join(["a"] * 20_000) + "]", r"dots \(at line 2\)"),
        ("a = " + "9" * 5000, "digits"),
        ("a = 0x" + "f" * 50_000, "more than 18 digits"),
        ("a = [0b" + "1" * 100 + "]", "more than 18 digits"),
        ("a = ", "Invalid value"),
    ],
)
def test_toml_has_bounds(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_toml(text)


def test_a_toml_file_may_have_a_byte_order_mark_and_any_line_ends(
    tmp_path: Path,
) -> None:
    file = tmp_path / "suite.toml"
    file.write_bytes(b'\xef\xbb\xbfa = 1\r\nb = """x\r\ny"""\r\nc = 2\r')
    assert read_toml(file) == {"a": 1, "b": "x\ny", "c": 2}
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    assert read_toml(link)["a"] == 1
