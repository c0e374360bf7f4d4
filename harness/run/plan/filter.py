"""Filter expressions over the words of a trial: "adding and not (lstm or rnn)"."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from harness.errors import MisuseError, shortened, suggestion

Predicate = Callable[[Collection[str]], bool]

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
_OPERATORS = {"and", "or", "not", "(", ")"}

MOST_TOKENS = 1000
"""Words, operators and parentheses of an expression."""

DEEPEST = 50
"""How deep parentheses and `not` may be nested: each level is a call within a call."""


def compile_filter(expression: str | None, known: Collection[str]) -> Predicate:
    """Return a predicate over a trial's words.

    A word matches as a whole: `gru` does not match `gru-reset-before`. `not` binds more
    tightly than `and`, `and` more tightly than `or`.

    Args:
        expression: Words joined by and, or, not and parentheses; None matches all.
        known: Every word that any trial has.

    Raises:
        MisuseError: If the expression is malformed or a word is unknown.
    """
    if expression is None:
        return lambda words: True
    tokens = _TOKEN.findall(expression)
    if len(tokens) > MOST_TOKENS:
        raise MisuseError(
            f"-k '{shortened(expression)}' has {len(tokens)} words and parentheses; "
            f"at most {MOST_TOKENS} are read"
        )
    for token in tokens:
        if token not in _OPERATORS and token not in known:
            hint = suggestion(token, known)
            raise MisuseError(
                f"-k '{shortened(expression)}': no trial has the word "
                f"'{shortened(token)}'{hint}"
            )
    parser = _Parser(tokens, expression)
    predicate = parser.alternatives()
    parser.expect_end()
    return predicate


class _Parser:
    """Recursive descent; each method reads one level of the grammar."""

    def __init__(self, tokens: Sequence[str], expression: str) -> None:
        self._tokens = list(tokens)
        self._expression = expression
        self._depth = 0

    def _next_is(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            del self._tokens[0]
            return True
        return False

    def _wrong(self, what: str) -> MisuseError:
        return MisuseError(
            f"-k '{shortened(self._expression)}': {what}; write words joined by and, "
            "or, not and parentheses, such as 'adding and not (lstm or rnn)'"
        )

    def alternatives(self) -> Predicate:
        terms = [self._conjunction()]
        while self._next_is("or"):
            terms.append(self._conjunction())
        return lambda words: any(term(words) for term in terms)

    def _conjunction(self) -> Predicate:
        terms = [self._term()]
        while self._next_is("and"):
            terms.append(self._term())
        return lambda words: all(term(words) for term in terms)

    def _term(self) -> Predicate:
        if self._next_is("not"):
            term = self._one_deeper(self._term)
            return lambda words: not term(words)
        if self._next_is("("):
            inside = self._one_deeper(self.alternatives)
            if not self._next_is(")"):
                raise self._wrong("a parenthesis is not closed")
            return inside
        if not self._tokens or self._tokens[0] in _OPERATORS:
            raise self._wrong("a word is missing")
        word = self._tokens.pop(0)
        return lambda words: word in words

    def _one_deeper(self, read: Callable[[], Predicate]) -> Predicate:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"it is nested more than {DEEPEST} deep")
        found = read()
        self._depth -= 1
        return found

    def expect_end(self) -> None:
        if self._tokens:
            raise self._wrong(f"'{self._tokens[0]}' is not expected there")
