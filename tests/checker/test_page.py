"""The page of meaning: the same in the docs, and true of records, limits and derivatives."""

import re
from pathlib import Path

import ttt_proofs.checker
from tests.checker.build import Script, atom, call, num
from ttt_proofs.checker import definitions, normal, proof, terms
from ttt_proofs.checker.terms import Node
from ttt_proofs.symbolic.records import encode

PAGE = ttt_proofs.checker.__doc__ or ""
DOCS = Path(__file__).parents[2] / "docs" / "checker.md"
KINDS = {
    kind.__name__: kind
    for module in (terms, definitions, proof)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Node) and kind is not Node
}


def test_the_docs_have_the_same_page():
    assert DOCS.read_text(encoding="utf-8") == PAGE, "write the docstring to docs/checker.md"


def test_records_have_the_fields_that_the_page_lists():
    section = PAGE[PAGE.index("# Records") :]
    listed = {
        name: re.sub(r" or null| true or false", "", fields).split(", ")
        for name, fields in re.findall(r"([A-Z]\w+)\(([a-z][^)]*)\)", section)
    }
    assert listed == {
        name: list(kind.__match_args__) for name, kind in KINDS.items() if name != "Theorem"
    }


def test_optional_fields_are_those_that_the_page_calls_so():
    section = PAGE[PAGE.index("# Records") :]
    optional = {
        (kind, field)
        for kind, fields in re.findall(r"([A-Z]\w+)\(([a-z][^)]*)\)", section)
        for field in re.findall(r"(\w+) or null", fields)
    } | {("Sum", "low"), ("Sum", "high")}  # the table of terms says when
    declared = {
        (name, field)
        for name, kind in KINDS.items()
        for field, hint in kind.hints().items()
        if "None" in str(hint)
    }
    assert optional == declared


def test_the_limits_are_those_on_the_page():
    limits = PAGE[PAGE.index("# Limits on work") : PAGE.index("# Records")]
    numbers = re.findall(r"(?<![\w^])\d[\d ]*\b", limits)
    said = [int(number.replace(" ", "")) for number in numbers]
    assert [number for number in said if number] == [
        terms.LARGEST_DEPTH,
        terms.LARGEST_LIST,
        normal.LARGEST_FORM,
        normal.LARGEST_BINDING,
        normal.LARGEST_CONTEXT,
        terms.LARGEST_SOURCES,
        normal.LARGEST_FORM,
        terms.LARGEST_DEPTH,
        terms.LARGEST_SIDES,
        terms.LARGEST_SIDES,
    ]
    assert f"-{terms.LARGEST_SHIFT} and {terms.LARGEST_SHIFT}" in " ".join(PAGE.split())
    assert terms.LARGEST_INTEGER == 2**53 - 1 and "2^53 - 1" in PAGE


def test_a_record_is_lists_with_the_type_first():
    script = Script()
    script.begin((), call("f", num(1), atom("x", 0), slots=((0, ()),)))
    assert encode(script.proof) == [
        "Proof",
        [],
        [
            [
                "Step",
                ["Reflexivity", [], f := encode(call("f", num(1), atom("x", 0), slots=((0, ()),)))],
                [],
                ["Sequent", [], ["Equation", [], f, f]],
            ]
        ],
    ]
    assert f == [
        "App",
        "f",
        [],
        [["Lam", [], ["Num", 1, 1]], ["Lam", [], ["Atom", "x", [["Ix", [], 0]]]]],
        [[0, []]],
    ]
