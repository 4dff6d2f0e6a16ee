"""The language of derived columns: `KafkaSource(derive={"spend": "price * quantity"})`.

    nodes.py        the tree of an expression
    tokens.py       the text as tokens
    parsing.py      the tokens as a tree
    values.py       the values of a batch of rows, and the rows that failed
    arithmetic.py   operators of numbers
    casting.py      conversions between types
    functions.py    the table of functions
    common_types.py constants, and the common types of values
    programs.py     what an expression is compiled to
    checking.py     a tree as a program, after a check of its types
    derived.py      the derived columns of a source

Streaming workers, both engines, backfills and training run this code, on numpy columns. docs/expressions.md describes
the language.
"""
