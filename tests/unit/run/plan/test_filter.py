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
