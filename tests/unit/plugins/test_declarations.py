"""Every argument of a declaration is checked, and a wrong one stops nothing else."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.declared import found_by
from harness.errors import PluginError
from harness.registry import Registry
from tests import helpers

RIGHT: dict[str, dict[str, str]] = {
    "framework": {"modules": "['numpy']"},
    "cell": {"factory": "'a:b'"},
    "task": {"factory": "'a:b'"},
    "implementation": {
        "framework": "'numpy'",
        "cells": "['gru']",
        "factory": "'a:b'",
    },
}
"""The source of arguments with which each kind of plugin is declared."""

NEVER = [
    "5",
    "b'torch'",
    "object()",
    "{1: 2}",
    "'a\\x1b[31mb'",
    "'a\\nb'",
    "'a' * 5000",
]
"""Values that no argument takes."""

FLAGS = ("reference", "trains")
LISTS = ("modules", "distributions", "inits", "cells")
LISTS += ("devices", "dtypes", "precisions", "biases")
IN_LISTS = ["[1]", "['gru', None]", "[['gru']]", "['a\\x1bb']", "'gru'", "{'gru': 1}"]
IN_LISTS += ["[1, 2] * 10**5", "True"]
FORMS = ("factory", "layer", "loop", "equations", "probe")

MORE: dict[str, list[str]] = {
    "name": ["None", "''", "['x']", "'A'", "'a' * 101"],
    "summary": ["None", "['x']"],
    "extra": ["['torch']", "''"],
    "framework": ["None", "['torch']"],
    "environment": ["'A=1'", "['A']", "{'A': 1}", "{1: 'A'}", "{'A=B': 'x'}"],
    **{name: ["1", "'yes'", "None"] for name in FLAGS},
    **dict.fromkeys(LISTS, IN_LISTS),
    **{name: ["''", "'module'", "print", "['a:b']"] for name in FORMS},
}
MORE["environment"] += [r"{'A': '\0'}", r"{'A': '\ud800'}", "{'': 'x'}"]
MORE["modules"] = [*IN_LISTS, "['']", "['a..b']", "['.a']", "None"]
MORE["files"] = [*IN_LISTS, "None", r"['a\nb']"]
MORE["states"] = ["'h'", "['h']", "{1: (0, 1)}", "{'h': 1}", "{'h': (1, 0)}"]
MORE["states"] += ["{'h': (0, 1, 2)}", "{'h': (0, float('nan'))}", "{'h': ('a', 'b')}"]
MORE["devices"] = [*IN_LISTS, "[]", "None"]
MORE["cells"] = [*IN_LISTS, "[]", "None"]


def declarations() -> list[tuple[str, str, str]]:
    """Return every kind, every argument and every value that is wrong there."""
    found = []
    for kind in RIGHT:
        function = getattr(harness, f"declare_{kind}")
        for name in inspect.signature(function).parameters:
            values = [v for v in NEVER if name != "environment" or v != "{1: 2}"]
            found += [(kind, name, value) for value in (*values, *MORE[name])]
    return found


def source(kind: str, argument: str, value: str) -> str:
    """Return a plugin file with one wrong argument, after one that is right."""
    given = {"name": "'mine'", **RIGHT[kind]}
    if argument in ("layer", "loop"):
        del given["factory"]
    given[argument] = value
    words = ", ".join(f"{name}={text}" for name, text in given.items())
    return f"from harness import declare_{kind}\ndeclare_{kind}({words})\n"


def reason_of(file: Path) -> str:
    """Read a plugin file in this process; return why it is refused."""
    found = found_by(lambda: helpers.REGISTRY.read_file(file))
    return found.reason if isinstance(found, PluginError) else "nothing"


def test_each_wrong_argument_is_a_problem_of_its_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        helpers.write(tmp_path / f"plugin{n}.py", source(*row)): row
        for n, row in enumerate(declarations())
    }
    assert len(files) > 250
    for file, (kind, argument, value) in files.items():
        reason = reason_of(file)
        row = f"{kind} {argument}={value}: {reason}"
        head = f"{kind} name " if argument == "name" else f"{kind} 'mine': {argument} "
        assert head in reason, row
        wrong = "has 200000 items; give at most" if "10**5" in value else " must be "
        assert ("use lower-case" if argument == "name" else wrong) in reason, row
        assert f"({file.name}:2)" in reason, row
        assert reason.isprintable(), row
        assert len(reason) < 400, row
    # What a file declares is read in its process as it was here.
    some = [*files][::40]
    assert Registry.discover(some).tables == helpers.REGISTRY.tables
    few = [word for file in some for word in ("--plugin", str(file))]
    code, out, err = helpers.call(["list", *few], monkeypatch, capsys)
    assert code == 2
    assert "numpy-reference" in out
    assert "not usable" in out
    assert err.count("rnn-harness: plugin ") == len(few) / 2


@pytest.mark.parametrize("kind", RIGHT)
def test_an_argument_that_fits_is_kept_though_its_list_changes_later(
    kind: str,
) -> None:
    declare: Callable[..., Any] = getattr(harness, f"declare_{kind}")
    given = {name: eval(text) for name, text in RIGHT[kind].items()}
    lists = {name: value for name, value in given.items() if isinstance(value, list)}
    found = declare("mine", **given)
    for value in lists.values():
        value.append(3)
    for name in lists:
        assert getattr(found, name) == tuple(lists[name][:-1])


def test_the_words_of_a_refusal_say_what_was_given_and_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="x") as raised:
        harness.declare_implementation(
            "x",
            framework=None,  # type: ignore[arg-type]
            cells=["gru"],
            factory="a:b",
        )
    assert str(raised.value) == (
        "implementation 'x': framework must be the name of a framework, such as "
        "'torch', not None"
    )
    with pytest.raises(ValueError, match="x") as raised:
        harness.declare_implementation(
            "x",
            framework="torch",
            cells=[1],  # type: ignore[list-item]
            factory="a:b",
        )
    assert str(raised.value) == (
        "implementation 'x': cells must be a list of names, such as ['gru'], or "
        "'equations' or 'reference', not [1]"
    )


@pytest.mark.parametrize(
    "text",
    ["class Odd(BaseException): pass\nraise Odd('bye')\n", "raise GeneratorExit"],
)
def test_a_file_that_raises_what_is_no_exception_stops_nothing_else(
    text: str, tmp_path: Path
) -> None:
    file = helpers.write(tmp_path / "odd.py", text)
    (problem,) = Registry.discover([file]).problems
    assert "(odd.py:" in str(problem)
