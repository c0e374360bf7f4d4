import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MisuseError
from harness.run.plan.filter import compile_filter

WORDS = ("adding", "gru", "gru-reset-before", "lstm", "seed0")


@pytest.mark.parametrize(
    ("expression", "words", "matches"),
    [
        ("gru", {"gru"}, True),
        ("gru", {"gru-reset-before"}, False),
        ("not gru", {"lstm"}, True),
        ("not not gru", {"gru"}, True),
        ("adding and not lstm", {"adding", "gru"}, True),
        ("adding and not lstm", {"adding", "lstm"}, False),
        # `and` binds more tightly than `or`, `not` more tightly than both
        ("gru or lstm and adding", {"gru"}, True),
        ("(gru or lstm) and adding", {"gru"}, False),
        ("not gru or lstm", {"gru", "lstm"}, True),
        ("not (gru or lstm)", {"gru", "lstm"}, False),
        ("adding and(gru or lstm)", {"adding", "lstm"}, True),
        ("gru-reset-before", {"gru-reset-before"}, True),
    ],
)
def test_an_expression_is_evaluated_on_the_words_of_a_trial(
    expression: str, words: set[str], matches: bool
) -> None:
    assert compile_filter(expression, WORDS)(words) is matches


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "a word is missing"),
        ("gru and", "a word is missing"),
        ("and gru", "a word is missing"),
        ("not", "a word is missing"),
        ("()", "a word is missing"),
        ("(gru", "a parenthesis is not closed"),
        ("gru)", "')' is not expected"),
        ("gru lstm", "'lstm' is not expected"),
        ("gru not lstm", "'not' is not expected"),
    ],
)
def test_a_malformed_expression_is_refused_with_an_example(
    expression: str, message: str
) -> None:
    with pytest.raises(MisuseError) as raised:
        compile_filter(expression, WORDS)
    assert message in str(raised.value)
    assert "such as 'adding and not (lstm or rnn)'" in str(raised.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(" * 3000, "has 3000 words and parentheses; at most 1000 are read"),
        ("(" * 900, "it is nested more than 50 deep"),
        ("(" * 400 + "gru" + ")" * 400, "it is nested more than 50 deep"),
        ("not " * 900 + "gru", "it is nested more than 50 deep"),
        ("not (" * 300 + "gru" + ")" * 300, "it is nested more than 50 deep"),
        ("gru or " * 20_000 + "gru", "has 40001 words and parentheses; at most 1000"),
        ("x" * 5000, "no trial has the word 'xxxxx"),
        ("gru and " + "x" * 130_000, "no trial has the word 'xxxxx"),
    ],
)
def test_an_endless_expression_is_refused_in_a_sentence(
    expression: str, message: str
) -> None:
    with pytest.raises(MisuseError) as raised:
        compile_filter(expression, WORDS)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_an_expression_may_be_as_deep_and_as_long_as_is_said() -> None:
    deep = "(" * 50 + "gru" + ")" * 50
    assert compile_filter(deep, WORDS)({"gru"})
    assert compile_filter("not " * 50 + "gru", WORDS)({"gru"})
    flat = " or ".join(["lstm"] * 499 + ["gru"])
    assert compile_filter(flat, WORDS)({"gru"})
    beside = " or ".join(["(not gru)"] * 60)  # one beside another is not deeper
    assert not compile_filter(beside, WORDS)({"gru"})


def test_a_message_lists_a_bounded_number_of_words() -> None:
    words = [f"seed{n}" for n in range(1000)]
    with pytest.raises(MisuseError, match="seed151 and 940 more") as raised:
        compile_filter("xyzzy", words)
    assert len(str(raised.value)) < 1000


def test_an_unknown_word_is_named_with_a_suggestion() -> None:
    with pytest.raises(
        MisuseError, match="has the word 'addin'; did you mean 'adding'"
    ):
        compile_filter("gru and addin", WORDS)


_expressions = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        )
        | inner.map(lambda e: f"not {e}")
    ),
    max_leaves=8,
)


@given(_expressions, st.sets(st.sampled_from(WORDS)))
def test_an_expression_agrees_with_that_of_python(
    expression: str, words: set[str]
) -> None:
    names = {word: f"w{index}" for index, word in enumerate(WORDS)}
    python = expression
    for word in sorted(WORDS, key=len, reverse=True):
        python = python.replace(word, names[word])
    values = {names[word]: word in words for word in WORDS}
    assert compile_filter(expression, WORDS)(words) == eval(python, values)
