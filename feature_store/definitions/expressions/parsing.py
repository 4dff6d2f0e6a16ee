"""Parses an expression: SQL's operators and precedence, with Python's spellings beside SQL's.

From the loosest to the tightest: `or`; `and`; `not`; comparisons, `in`, `between`, `like`, `is`; `+ - ||`; `* / // %`;
a sign. A keyword is a keyword only where a column cannot stand, so that columns may have names such as `end` or `date`.
"""

from __future__ import annotations

from collections.abc import Callable

from feature_store.definitions.expressions.nodes import (
    MOST_DEPTH,
    Call,
    Case,
    Cast,
    Column,
    Constant,
    ExpressionError,
    Node,
)
from feature_store.definitions.expressions.tokens import Token, name_of, number_of, text_of, tokens_of

_COMPARISONS = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
# The keywords that can follow `case` where it is the name of a column.
_AFTER_A_COLUMN = {"and", "or", "not", "in", "is", "like", "between", "then", "else", "end", "as", "escape"}
MOST_ARGUMENTS = 200
_SHORTER = "put a part of it in a derived column of its own; concat(a, b, …) joins many texts"
# The parser recurses through all levels of precedence for each pair of parentheses.
_MOST_NESTED = 25


def parse(text: str) -> Node:
    """The tree of an expression.

    Raises:
        ExpressionError: the text is no expression; the error says where, and what was expected.
    """
    parser = _Parser(tokens_of(text))
    tree = parser.expression()
    parser.finish()
    _refuse_deep(tree)
    return tree


def _refuse_deep(tree: Node) -> None:
    level = [tree]
    for _ in range(MOST_DEPTH):
        level = [part for node in level for part in node.parts]
        if not level:
            return
    raise ExpressionError(level[0].at, f"the expression is more than {MOST_DEPTH} operations deep", _SHORTER)


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens, self._place, self._depth = tokens, 0, 0

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > _MOST_NESTED:
            raise ExpressionError(
                self._next.at, f"parentheses and arguments nest more than {_MOST_NESTED} deep", _SHORTER
            )
        found = self._joined("or", lambda: self._joined("and", self._negated))
        self._depth -= 1
        return found

    def finish(self) -> None:
        if self._next.kind != "end":
            hint = ""
            if self._next.keyword in _COMPARISONS:
                hint = "join comparisons with and: 0 < price and price < 3"
            raise ExpressionError(self._next.at, f"expected an operator or the end, got {self._next.shown}", hint)

    # -- operators, from the loosest ------------------------------------------------------------------------------

    def _joined(self, keyword: str, operand: Callable[[], Node]) -> Node:
        at, parts = self._next.at, [operand()]
        while self._takes(keyword):
            parts.append(operand())
            self._refuse_many(parts)
        return parts[0] if len(parts) == 1 else Call(at, keyword, tuple(parts))

    def _negated(self) -> Node:
        at, count = self._next.at, 0
        while self._next.keyword == "not":
            self._advance()
            count += 1
        found = self._compared()
        # `not not x` is x, as a truth value: one negation checks the type, two keep it.
        for _ in range(count if count < 2 else 2 - count % 2):
            found = Call(at, "not", (found,))
        return found

    def _compared(self) -> Node:
        left, token = self._sum(), self._next
        if token.keyword in _COMPARISONS:
            self._advance()
            return Call(token.at, _COMPARISONS[token.keyword], (left, self._sum()))
        if self._takes("is"):
            is_not = self._takes("not")
            if not (self._takes("null") or self._takes("none")):
                raise ExpressionError(self._next.at, f"expected null after is, got {self._next.shown}")
            return self._unless(is_not, Call(token.at, "is null", (left,)))
        is_not = self._takes("not")
        if self._takes("in"):
            return self._unless(is_not, Call(token.at, "in", (left, *self._list())))
        if self._takes("like"):
            pattern = self._sum()
            escape = (self._sum(),) if self._takes("escape") else ()
            return self._unless(is_not, Call(token.at, "like", (left, pattern, *escape)))
        if self._takes("between"):
            least = self._sum()
            self._need("and")
            most = self._sum()
            within = Call(token.at, ">=", (left, least)), Call(token.at, "<=", (left, most))
            return self._unless(is_not, Call(token.at, "and", within))
        if is_not:
            raise ExpressionError(self._next.at, f"expected in, like or between after not, got {self._next.shown}")
        return left

    def _unless(self, is_not: bool, node: Node) -> Node:
        return Call(node.at, "not", (node,)) if is_not else node

    def _list(self) -> tuple[Node, ...]:
        opening = self._next
        if not (self._takes("(") or self._takes("[")):
            raise ExpressionError(opening.at, f"expected a list after in, such as (1, 2), got {opening.shown}")
        closing = ")" if opening.text == "(" else "]"
        items: list[Node] = []
        while not items or self._next.keyword != closing:
            items.append(self.expression())
            self._refuse_many(items)
            if not self._takes(","):
                break
        self._need(closing)
        return tuple(items)

    def _sum(self) -> Node:
        return self._chained(("+", "-", "||"), lambda: self._chained(("*", "/", "//", "%"), self._signed))

    def _chained(self, signs: tuple[str, ...], operand: Callable[[], Node]) -> Node:
        found, count = operand(), 0
        while self._next.keyword in signs:
            token = self._advance()
            found, count = Call(token.at, token.keyword, (found, operand())), count + 1
            if count > MOST_DEPTH:
                raise ExpressionError(token.at, f"more than {MOST_DEPTH} operators in a row", _SHORTER)
        return found

    def _signed(self) -> Node:
        token, is_negative, is_signed = self._next, False, False
        while self._next.keyword in ("-", "+"):
            is_negative, is_signed = is_negative != (self._advance().text == "-"), True
        found = self._operand()
        if not is_signed:
            return found
        if isinstance(found, Constant) and type(found.value) in (int, float):
            return Constant(token.at, -found.value if is_negative else found.value)
        return Call(token.at, "negative" if is_negative else "positive", (found,))

    # -- operands ---------------------------------------------------------------------------------------------------

    def _operand(self) -> Node:
        token = self._advance()
        if token.kind == "number":
            return Constant(token.at, number_of(token))
        if token.kind == "text":
            return Constant(token.at, text_of(token))
        if token.keyword == "(":
            found = self.expression()
            self._need(")")
            return found
        if token.kind != "word":
            raise ExpressionError(token.at, f"expected a column, a constant or a function, got {token.shown}")
        return self._word(token)

    def _word(self, token: Token) -> Node:
        if token.keyword in _CONSTANTS:
            return Constant(token.at, _CONSTANTS[token.keyword])
        if token.keyword == "case" and self._is_case():
            return self._case(token)
        if self._next.keyword != "(":
            return Column(token.at, name_of(token))
        self._advance()
        if token.keyword in ("cast", "try_cast"):
            return self._cast(token)
        arguments: list[Node] = []
        while self._next.keyword != ")":
            arguments.append(self.expression())
            self._refuse_many(arguments)
            if not self._takes(","):
                break
        self._need(")")
        return Call(token.at, token.keyword, tuple(arguments))

    def _is_case(self) -> bool:
        is_operand = self._next.kind in ("word", "number", "text") or self._next.keyword == "("
        return is_operand and self._next.keyword not in _AFTER_A_COLUMN

    def _case(self, token: Token) -> Node:
        subject = None if self._next.keyword == "when" else self.expression()
        branches: list[tuple[Node, Node]] = []
        while self._takes("when"):
            at, condition = self._next.at, self.expression()
            if subject is not None:
                condition = Call(at, "=", (subject, condition))
            self._need("then")
            branches.append((condition, self.expression()))
            self._refuse_many(branches)
        if not branches:
            raise ExpressionError(self._next.at, f"expected when, got {self._next.shown}")
        otherwise = self.expression() if self._takes("else") else Constant(token.at, None)
        self._need("end")
        return Case(token.at, tuple(branches), otherwise)

    def _cast(self, token: Token) -> Node:
        value = self.expression()
        self._need("as")
        name = self._advance()
        if name.kind != "word":
            raise ExpressionError(name.at, f"expected a type such as Int64, got {name.shown}")
        dtype = Cast(name.at, value, name.text, token.keyword == "try_cast")
        self._need(")")
        return dtype

    # -- tokens -----------------------------------------------------------------------------------------------------

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _advance(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._place += 1
        return token

    def _takes(self, keyword: str) -> bool:
        if self._next.keyword != keyword:
            return False
        self._advance()
        return True

    def _need(self, keyword: str) -> None:
        if not self._takes(keyword):
            raise ExpressionError(self._next.at, f"expected {keyword!r}, got {self._next.shown}")

    def _refuse_many(self, parts: list[Node] | list[tuple[Node, Node]]) -> None:
        if len(parts) > MOST_ARGUMENTS:
            raise ExpressionError(self._next.at, f"more than {MOST_ARGUMENTS} parts in a row")
