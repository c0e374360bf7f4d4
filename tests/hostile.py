"""Strings and run folders of a stranger, for tests of what reads or prints them.

`TEXTS` has one string of each kind, `LINE` has all kinds that fit into one string, and
`poison` writes a string in place of every string of a run folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.files.text import hash_of, parse_object, sealed
from harness.store import Reading, RunFolder
from tests import fake_runs

RAN = "a hostile script ran"
"""The title of a page in which one of these scripts has run."""

OUTSIDE = "outside.invalid"
"""The host that some of these strings would ask for something."""

_CODE = f"document.title='{RAN}';new Image().src='http://{OUTSIDE}/script'"

TEXTS: Mapping[str, str] = {
    # Pages and pictures.
    "script": f"<script>{_CODE}</script>",
    "quoted attribute": f'" onload="{_CODE}" x="',
    "attribute": f"' autofocus onfocus='{_CODE}' x='",
    "image": f'<img src="http://{OUTSIDE}/image" onerror="{_CODE}">',
    "picture": f'</text></g></svg><svg onload="{_CODE}">',
    "style": f"</style><style>@import 'http://{OUTSIDE}/style';</style>",
    "url": f"url(http://{OUTSIDE}/url) url(#x)",
    "reference": 'id="mark0" href="#p1" xmlns="x" data-cell="y" \\1 \\g<0>',
    "frame": f'<iframe srcdoc="&lt;script&gt;{_CODE}&lt;/script&gt;"></iframe>',
    "base": f'<base href="http://{OUTSIDE}/"><meta http-equiv="refresh" content="0">',
    "comment": "--><!-- ]]> <![CDATA[ <?xml?>",
    "entity": "&lt;b&gt; &amp; &#x3c;script&#x3e;",
    # Markdown.
    "script link": f"[x](javascript:{_CODE})",
    "closed link": f"x](javascript:{_CODE}) ![y](http://{OUTSIDE}/markdown)",
    "named link": f"[x]: javascript:{_CODE}",
    "automatic link": f"<javascript:{_CODE}> http://{OUTSIDE} www.{OUTSIDE}",
    "address": f"a@{OUTSIDE} @someone #1",
    "bar": "a | b || c \\| d",
    "code": "``` `x` ~~~",
    "heading": "# x",
    "list": "- x",
    "numbered list": "1. x",
    "rule": "---",
    "underline": "===",
    "quotation": "> x",
    "emphasis": "*x* _y_ __z__ ~~u~~",
    # File names.
    "parent": "../../../../esc",
    "root": "/esc",
    "slash": "a/b",
    "dots": "..",
    "NUL": "a\0b",
    "300 letters": "n" * 300,
    "5000 letters": "n" * 5000,
    "other scripts": "日本語 и עברית 🙂",
    # Terminals.
    "colour": "\x1b[31mred",
    "title": "\x1b]0;title\x07",
    "clear": "\x1b[2J\x1b[H",
    "one-byte escape": "\x9b2J",
    "carriage return": "bad\rgood",
    "new line": "bad\ncertified: 22 checks\n",
    "line separator": "bad\u2028certified\u2029\x85\x0b\x0c",
    "backspaces": "bad\b\b\bgood\x7f",
    "direction": "\u202edab\u2066 \u200f",
    "no width": "a\u200bb\ufeffc\u2060",
    "surrogate": "a\ud800b\udc80",
    "no character": "\ufffe\uffff",
    "rich markup": f"[red]x[/red] [/] [link=http://{OUTSIDE}]y[/link] :smile:",
    # Spreadsheets.
    "formula": "=HYPERLINK(\"http://x\",\"y\")",
    "plus": "+1+cmd|' /C calc'!A0",
    "minus": "-1+cmd|' /C calc'!A0",
    "at": "@SUM(1)",
    "wide formula": "＝1+1",
    "late formula": " \t\r\n=1+1",
    "quotes": 'a","=1+1","b\'',
    # Formats.
    "mathematics": "$\\frac{1}{0}$ $x",
    "underscore": "_hidden",
    "formats": "%s %d %n {0} {x} {}",
    "empty": "",
    "space": " ",
}  # fmt: skip
"""A string of each kind that has once passed for more than text."""

LINE = " ".join(
    text for name, text in TEXTS.items() if name not in ("300 letters", "5000 letters")
)
"""All kinds in one string."""

_KEPT_KEYS = frozenset(
    (
        *("measure", "outcome", "dtype", "precision", "biases", "device", "metric"),
        *("better", "x_unit", "headline", "follows", "trial", "files", "log_files"),
        *("verdict", "sources", "settings", "optimizer"),
    )
)
"""Keys whose values this program chose from a list of its own, or compares."""

_KEPT_SPLITS = frozenset(
    (
        *("train", "held_out", "floor", "outcome", "initial", "trained", "readback"),
        *("certificate", "forward", "loss_and_gradients", "train_step", "stream"),
        "place",
    )
)

_NAMING = frozenset(("choices", "libraries", "causes", "where", "environment"))
"""Maps whose keys are text too."""


def poison(folder: Path, text: Callable[[str], str]) -> None:
    """Write another string in place of every string that is data in a run folder.

    Args:
        folder: Of a run; its hashes are mended, so that it is read as before.
        text: Returns the string in place of one; equal ones for equal strings.
    """
    info = folder / "run.json"
    _write(info, _poisoned(parse_object(info.read_bytes()), text))
    for trial in (folder / "trials").iterdir():
        hashes = {}
        for file in sorted(trial.rglob("*")):
            if file.name == "events.jsonl":
                lines = file.read_text(encoding="utf-8").splitlines()
                new = [json.dumps(_poisoned(json.loads(line), text)) for line in lines]
                file.write_text("".join(f"{line}\n" for line in new), encoding="utf-8")
            elif file.name == "spec.json":
                _write(file, _poisoned(parse_object(file.read_bytes()), text))
            if file.is_file():
                hashes[str(file.relative_to(trial))] = hash_of(file.read_bytes())
        result = trial / "result.json"
        if result.exists():
            found = _poisoned(parse_object(result.read_bytes()), text)
            found["files"] = {name: hashes[name] for name in found["files"]}
            _write(result, found)


def _write(file: Path, value: Any) -> None:
    file.write_text(sealed(json.dumps(value, indent=1)), encoding="utf-8")


def _poisoned(value: Any, text: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [_poisoned(item, text) for item in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, item in value.items():
        # `trial` is an id in a result, and the whole trial in a specification.
        own = key in _KEPT_KEYS and not (key == "trial" and isinstance(item, dict))
        if own or (key == "split" and item in _KEPT_SPLITS):
            found[key] = item
        elif key in _NAMING and isinstance(item, dict):
            found[key] = {text(k): _poisoned(v, text) for k, v in item.items()}
        else:
            found[key] = _poisoned(item, text)
    return found


def every_part(path: Path) -> RunFolder:
    """Create a run with numbers for each figure and table of a report."""
    run = fake_runs.quick(path)
    writer = fake_runs.Writer(run, 1_700_001_000.0)
    for batch, hidden_size in ((1, 64), (1, 256), (64, 64), (64, 256)):
        for name in ("torch-native", "my-gru"):
            trial = fake_runs.shape_trial(
                name, "gru", batch=batch, hidden_size=hidden_size, session="sizes"
            )
            fact = {"peak": dict(fake_runs.PEAK)}
            fact |= {"fitness": {"verdict": "noisy", "reasons": [fake_runs.LOAD]}}
            fake_runs.speed(
                writer, trial, 1e-4 * batch * hidden_size / 64, step_s=2e-5,
                shaky=name == "my-gru", first_call_s=1.0, **fact,
            )  # fmt: skip
            fake_runs.memory(writer, trial, 3e8)
    for init in ("canonical", "chrono"):
        trial = fake_runs.learning_trial("gru", 0, init=init)
        fake_runs.gradients(writer, trial, (50, 100), follows=None)  # type: ignore[arg-type]
    for name, dtype in (
        ("numpy-reference", "float64"), ("numpy-reference", "float32"),
        ("my-gru", "float32"),
    ):  # fmt: skip
        _curve(writer, name, dtype)
    writer.commit(
        fake_runs.speed_trial("torch-compile", "gru"),
        outcome="crashed",
        reason="the worker died",
        log_tail=["Fatal Python error: Segmentation fault", 'File "x.py", line 3'],
    )
    return run


def _curve(writer: fake_runs.Writer, implementation: str, dtype: str) -> None:
    trial = fake_runs.learning_trial("lstm", 0, task="copy-memory", length=50)
    trial = replace(trial, implementation=implementation, dtype=dtype)
    facts = {"against": "another reference", "unproven": "that it is an LSTM"}
    facts |= {"causes": {"outputs": "gates in another order"}}
    facts |= {"where": {"outputs": "w_hh at 3x4"}}
    fake_runs.parity(writer, implementation, "lstm", "outputs", facts, dtype=dtype)
    losses = [0.2 - 0.001 * n + (1e-6 if dtype == "float32" else 0) for n in range(100)]
    train = Reading("train", {"loss": losses}, list(range(1, 101)), "updates")
    outcome = {"solved": 0, "updates": 100, "budget": 100}
    writer.commit(
        trial,
        events=[train],
        readings=[Reading("outcome", outcome), fake_runs.readback(True)],
        headline="loss",
        parameters={"canonical": 17_217},
        quantities=fake_runs.COPY,
    )
