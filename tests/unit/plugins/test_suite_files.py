import os
import re
from collections import Counter
from pathlib import Path

import pytest

from harness.errors import MisuseError
from harness.registry import Registry
from harness.scaffold import NewPlugin, write_plugin
from harness.suite import Suite, built_in_suites, load_suite
from tests import helpers
from tests.helpers import REGISTRY


def load(
    text: str, folder: Path, *settings: str, seeds: list[int] | None = None
) -> Suite:
    file = helpers.write(folder / "suite.toml", text)
    return load_suite(str(file), REGISTRY, settings, seeds, may_run=lambda _: True)


def problems(text: str, folder: Path, *settings: str) -> str:
    with pytest.raises(MisuseError) as raised:
        load(text, folder, *settings)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.parametrize("name", built_in_suites())
def test_every_built_in_suite_can_be_loaded_and_has_a_purpose(name: str) -> None:
    suite = load_suite(name, REGISTRY)
    assert suite.name == name
    assert suite.why


def test_deepbench_has_each_published_shape_once() -> None:
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for section in load_suite("deepbench", REGISTRY).speed:
        (cell,) = section.cells
        for shape in section.shapes:
            for sizes in shape.sizes:
                assert sizes["input_size"] == sizes["hidden_size"]
                found.append((" ".join(section.phases), cell, tuple(sizes.values())))
    assert len({(cell, sizes) for _, cell, sizes in found}) == len(found)
    # One shape of inference_server_set is in inference_device_set too.
    assert Counter((phases, cell) for phases, cell, _ in found) == {
        ("forward loss_and_gradients train_step", "rnn"): 12,
        ("forward loss_and_gradients train_step", "lstm"): 22,
        ("forward loss_and_gradients train_step", "gru"): 18,
        ("forward", "lstm"): 15 - 1,
        ("forward", "gru"): 54,
        ("forward stream", "rnn"): 2,
        ("forward stream", "lstm"): 1,
    }


def test_a_suite_file_is_read_by_its_path(tmp_path: Path) -> None:
    suite = load(helpers.TINY, tmp_path)
    assert suite.name == "tiny"
    assert suite.learning[0].length == (10,)
    assert suite.learning[0].seeds == (0, 1)


def test_all_mistakes_are_reported_at_once_with_place_and_suggestion(
    tmp_path: Path,
) -> None:
    text = (
        helpers.TINY.replace("hidden_size", "hiden_size")
        .replace("batch = 8", "batch = 0")
        .replace("length = 10", "length = [10, -3]")
        .replace("learning_rate = 0.001", 'learning_rate = "fast"')
        .replace("[0, 1]", "[0, -1]")
    )
    printed = problems(text, tmp_path)
    assert "has 6 problems:" in printed
    assert "learning[0].hiden_size: unknown key; did you mean 'hidden_size'?" in printed
    assert "learning[0].hidden_size: missing; give a value" in printed
    assert "learning[0].batch: should be greater than or equal to 1, not 0" in printed
    assert (
        "learning[0].length[1]: should be greater than or equal to 1, not -3" in printed
    )
    assert "learning[0].learning_rate: should be a valid number" in printed
    assert 'not "fast"' in printed
    assert (
        "learning[0].seeds[1]: should be greater than or equal to 0, not -1" in printed
    )


def test_all_unknown_names_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        helpers.TINY.replace('"adding"', '"addin"')
        .replace('["rnn"]', '["rmm", "gru", "ltsm"]')
        .replace("numpy-reference", "numpy-referense")
    )
    printed = problems(text, tmp_path)
    assert "has 4 problems:" in printed
    assert "learning[0].task: unknown task 'addin'; did you mean 'adding'?" in printed
    assert "learning[0].cells: unknown cell 'ltsm'; did you mean 'lstm'?" in printed
    assert "learning[0].cells: unknown cell 'rmm'" in printed
    assert "did you mean 'numpy-reference'?" in printed


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        ("{batch = 4, time_steps = 10, input_size = 2, hidden_size = 1e400}", 1),
        ("{batch = 4, time_steps = 10, input_size = 2, hidden_size = 2024-01-01}", 1),
        ("{batch = 0, time_steps = 0, input_size = 2, hidden_size = 2}", 2),
        ("3", 1),
        ("", 1),
    ],
)
def test_a_list_is_not_called_too_short_because_an_item_is_wrong(
    shapes: str, found: int, tmp_path: Path
) -> None:
    text = helpers.suite(helpers.speed("numpy-reference"))
    text = re.sub(r"^shapes = .*$", f"shapes = [{shapes}]", text, flags=re.MULTILINE)
    printed = problems(text, tmp_path)
    assert printed.count("speed[0].shapes") == found
    assert ("at least 1 item" in printed) is (not shapes)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("length = 10", "length = 0", "learning[0].length"),
        ("length = 10", "length = 10.5", "learning[0].length"),
        ("length = 10", "length = true", "learning[0].length"),
        ("length = 10", 'length = "10"', "learning[0].length"),
        ("batch = 8", "batch = -8", "not -8"),
        ("0.001", "0", "should be greater than 0, not 0"),
        ("0.001", "-0.001", "should be greater than 0"),
        ("0.001", "nan", "learning[0].learning_rate"),
        ("0.001", "inf", "learning[0].learning_rate: should be a finite number"),
        ("0.001", "true", "learning[0].learning_rate"),
        ("0.001", '"0.1"', "learning[0].learning_rate"),
        ("batch = 8", "batch = 8\nclip_norm = inf", "learning[0].clip_norm"),
        ("batch = 8", "batch = 8\nclip_norm = 0", "learning[0].clip_norm"),
        ("batch = 8", 'batch = 8\nclip_norm = "no"', "learning[0].clip_norm"),
        ("batch = 8", "batch = 8\nbeta1 = 1.0", "should be less than 1"),
        ("batch = 8", 'batch = 8\noptimizer = "adamw"', "'adam', 'rmsprop' or 'sgd'"),
        ("batch = 8", 'batch = 8\ndtype = "float16"', "'float32' or 'float64'"),
        ("batch = 8", "batch = 8\ntask_options = {symbols = nan}", "task_options"),
        ("length = 10", "length = 1", "learning[0].length: adding: length must be"),
        ("batch = 8", "batch = 8\ntask_options = {gap = 1}", "takes no option 'gap'"),
        (
            '"adding"',
            '"copy-memory"\ntask_options = {symbls = 1}',
            "copy-memory: takes no option 'symbls'; did you mean 'symbols'?",
        ),
        (
            '"adding"',
            '"copy-memory"\ntask_options = {symbols = 0}',
            "symbols must be a whole number of at least 1, not 0",
        ),
        (
            "batch = 8",
            'batch = 8\ninit = "cronho"',
            "init: cell 'rnn' has no initial values 'cronho'; did you mean 'chrono'?",
        ),
        ("[0, 1]", "[]", "learning[0].seeds"),
        ('["rnn"]', "[]", "learning[0].cells"),
        ('["rnn"]', '"rnn"', "learning[0].cells"),
        ('name = "tiny"', 'name = "../tiny"', "name: "),
        ('name = "tiny"', 'name = ""', "name: "),
        ('why = "For tests."', "", "why: missing; give a value"),
        ("[[learning]]", "[learning]", "learning"),
        ("[[learning]]", "[[lerning]]", "unknown key; did you mean 'learning'?"),
    ],
)
def test_one_wrong_value_is_named_with_what_is_allowed(
    before: str, after: str, message: str, tmp_path: Path
) -> None:
    assert before in helpers.TINY
    found = problems(helpers.TINY.replace(before, after), tmp_path)
    assert message in found
    assert "pydantic" not in found


def test_the_suggestion_for_a_wrong_key_of_a_shape_is_a_key_of_shapes(
    tmp_path: Path,
) -> None:
    text = (
        'name = "s"\nwhy = "w"\n[[speed]]\ncells = ["gru"]\n'
        "shapes = [{ batch = 1, time_step = 2, input_size = 1, hidden_size = 1 }]\n"
    )
    printed = problems(text, tmp_path)
    assert (
        "speed[0].shapes[0].time_step: unknown key; did you mean 'time_steps'?"
        in printed
    )
    assert "speed[0].shapes[0].time_steps: missing" in printed


def test_a_suite_without_sections_is_refused(tmp_path: Path) -> None:
    printed = problems('name = "empty"\nwhy = "w"\n', tmp_path)
    assert "no [[learning]], [[gradients]] or [[speed]] section" in printed


def test_an_error_in_toml_is_reported_with_its_line(tmp_path: Path) -> None:
    printed = problems(helpers.TINY.replace("batch = 8", "batch = = 8"), tmp_path)
    assert "suite.toml is not valid TOML" in printed
    assert "line 10" in printed


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_bytes(b"\xef\xbb\xbf" + helpers.TINY.replace("\n", "\r\n").encode())
    assert load_suite(str(file), REGISTRY) == load(helpers.TINY, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 100_000, "is not valid TOML: lists or tables are nested more"),
        ("a = " + "[" * 99 + "]" * 99, "is not valid TOML: lists or tables are nested"),
        ("a." * 20_000 + "a = 1", "is not valid TOML: there are more than 200 dots"),
        ("a = " + "9" * 5000, "is not valid TOML: an integer has more than 18 digits"),
        (
            "a = 0x" + "f" * 5000,
            "is not valid TOML: an integer has more than 18 digits",
        ),
        ("#" * 600_000, "cannot be read: is larger than 0.5 MiB"),
    ],
)
def test_a_file_has_bounds(text: str, message: str, tmp_path: Path) -> None:
    printed = problems(text, tmp_path)
    assert f"suite.toml {message}" in printed
    assert len(printed) < 300


def test_a_suite_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    for name, what in (("pipe", "is a pipe"), ("zero", "is a device")):
        with pytest.raises(MisuseError, match=rf"{name}\.toml cannot be read: {what}"):
            load_suite(str(tmp_path / f"{name}.toml"), REGISTRY)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        MisuseError, match=r"bytes\.toml is not valid TOML: it is not text in UTF-8"
    ):
        load_suite(str(tmp_path / "bytes.toml"), REGISTRY)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("quik", "unknown suite 'quik'; did you mean 'quick'?"),
        ("xyzzy", f"built in: {', '.join(built_in_suites())}; or give a TOML file"),
        ("nowhere.toml", "suite file nowhere.toml does not exist"),
        ("./nowhere", "suite file ./nowhere does not exist"),
        ("/", "suite file / is a folder"),
    ],
)
def test_a_missing_suite_is_reported(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MisuseError) as raised:
        load_suite(source, REGISTRY)
    assert message in str(raised.value)


# --- --set and --seeds ---------------------------------------------------------------


def test_a_setting_changes_one_section_or_all(tmp_path: Path) -> None:
    text = helpers.suite(helpers.learning(), helpers.learning())
    suite = load(text, tmp_path, "learning.updates=7", "learning.1.length=[20, 30]")
    assert [s.updates for s in suite.learning] == [7, 7]
    assert [s.length for s in suite.learning] == [(10,), (20, 30)]
    settings = ("learning.task=copy-memory", "learning.task_options.symbols=3")
    suite = load(text, tmp_path, *settings, "name=other")
    assert suite.learning[0].task_options == {"symbols": 3}
    assert suite.name == "other"


def test_seeds_replace_those_of_every_section(tmp_path: Path) -> None:
    assert load(helpers.TINY, tmp_path, seeds=[5, 6]).learning[0].seeds == (5, 6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nonsense", "--set nonsense: give KEY=VALUE, e.g. learning.updates=500"),
        ("=3", "give KEY=VALUE"),
        ("learning.=3", "give KEY=VALUE"),
        ("learning..updates=3", "give KEY=VALUE"),
        ("learning.5.updates=3", "[[learning]] has sections 0 to 0"),
        ("learning.0=3", "give learning.0.KEY=VALUE"),
        ("speed.rounds=3", "the suite has no [[speed]] section"),
        ("lerning.updates=3", "the suite has no [[lerning]] section"),
        ("learning.updates.x=3", "'updates' holds no keys"),
        ("learning.updats=3", "updats: unknown key; did you mean 'updates'?"),
        ("learning.updates=many", 'should be a valid integer, not "many"'),
        ("learning.updates=", 'should be a valid integer, not ""'),
        ("learning=3", "learning: "),
        ("name.x=3", "the suite has no [[name]] section"),
    ],
)
def test_an_invalid_setting_is_reported(
    setting: str, message: str, tmp_path: Path
) -> None:
    assert message in problems(helpers.TINY, tmp_path, setting)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return self.nothing", "AttributeError: 'Task' object has no attribute"),
        ("return 1 // 0", "ZeroDivisionError"),
        ("raise ValueError('too short')", "length: too short"),
    ],
)
def test_whatever_a_task_raises_about_a_length_is_a_problem_of_the_suite(
    body: str, message: str, tmp_path: Path
) -> None:
    own = NewPlugin("task", "own", file=tmp_path / "own.py")
    file = write_plugin(own, REGISTRY)
    lines = file.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if "def time_steps" in line)
    lines.insert(at + 1, f"        {body}")
    helpers.write(file, "\n".join(lines))
    suite = helpers.write(
        tmp_path / "suite.toml", helpers.TINY.replace("adding", "own")
    )
    with pytest.raises(MisuseError) as raised:
        load_suite(str(suite), Registry.discover([file]))
    assert f"learning[0].{'' if 'length' in message else 'task: own: '}" in str(raised)
    assert message in str(raised.value)


# --- environments --------------------------------------------------------------------


def test_a_python_is_relative_to_the_suite_and_may_hold_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of-me")
    monkeypatch.setenv("ENVS", "/opt/envs")
    text = helpers.TINY + (
        "[environments]\n"
        'numpy = "../own/bin/python"\ntorch = "~/torch/bin/python"\n'
        'jax = "$ENVS/jax/bin/python"\nkeras-jax = "${ENVS}/keras/bin/python"\n'
    )
    assert load(text, tmp_path).environments == {
        "numpy": f"{tmp_path}/../own/bin/python",
        "torch": "/home/of-me/torch/bin/python",
        "jax": "/opt/envs/jax/bin/python",
        "keras-jax": "/opt/envs/keras/bin/python",
    }


def test_the_python_of_a_setting_is_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    setting = "environments.keras-jax=.venv-jax/bin/python"
    expected = {"keras-jax": f"{tmp_path}/.venv-jax/bin/python"}
    assert load_suite("smoke", REGISTRY, [setting]).environments == expected
    (tmp_path / "sub").mkdir()
    assert load(helpers.TINY, tmp_path / "sub", setting).environments == expected


def test_the_python_of_an_environment_may_be_a_link_that_is_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "python").symlink_to("/usr/bin/env")
    text = helpers.TINY + '[environments]\nnumpy = "python"\n'
    assert load(text, tmp_path).environments == {"numpy": f"{tmp_path}/python"}


def test_the_suite_that_a_run_stores_has_no_environments(
    tmp_path: Path,
) -> None:
    plain = load(helpers.TINY, tmp_path)
    own = load(helpers.TINY, tmp_path, "environments.numpy=/opt/python")
    assert own.environments
    assert own.model_dump(mode="json") == plain.model_dump(mode="json")
    assert Suite.model_validate(own.model_dump(mode="json")) == plain


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('trch = "x"', "environments: unknown framework 'trch'; did you mean 'torch'?"),
        ("torch = 3", "environments.torch: give the path of a Python"),
        ('torch = ""', "environments.torch: give the path of a Python"),
        ("torch = {python = 1}", "environments.torch: give the path of a Python"),
        ('torch = "$NO_SUCH/x"', "environments.torch: $NO_SUCH/x: $NO_SUCH is not set"),
        ('torch = "~no-such-user/x"', "~no-such-user/x: there is no such user"),
    ],
)
def test_an_invalid_environment_is_reported(
    table: str, message: str, tmp_path: Path
) -> None:
    assert message in problems(f"{helpers.TINY}[environments]\n{table}\n", tmp_path)
    if " = {" not in table:
        setting = "environments." + table.replace(" = ", "=")
        assert message.split("$")[0] in problems(helpers.TINY, tmp_path, setting)


@pytest.mark.parametrize("text", ["environments = 3\n", "[[environments]]\n"])
def test_environments_must_be_a_table(text: str, tmp_path: Path) -> None:
    suite = text + helpers.TINY if "=" in text else helpers.TINY + text
    printed = problems(suite, tmp_path)
    assert "environments: should be a valid dictionary" in printed
