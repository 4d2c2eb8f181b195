"""`lumeproxy audit`: exit 0 when the books are in order, 1 when not."""

from __future__ import annotations

from tests.cli.support import Cli, book_call, in_database


def test_books_in_order_are_said_to_be(either: Cli):
    either("account", "create", "ann", "--credit", "1")

    assert either("audit").status == 0
    assert "The books are in order" in either("audit").out
    assert either.json("audit") == {"ok": True, "problems": []}


def test_a_wrong_bill_is_found_named_and_exits_with_1(cli: Cli):
    cli("account", "create", "ann", "--credit", "1")
    in_database(cli.data, lambda tx: book_call(tx, 1, "ann", cost_nanousd=150_001))

    person, machine = cli("audit"), cli("audit", "--json")

    assert (person.status, machine.status) == (1, 1)
    assert person.out.startswith(f"- The call call_{1:026} was charged $0.00015 (150001 nano-USD)")
    assert machine.json["ok"] is False
    assert ["- " + problem for problem in machine.json["problems"]] == person.out.splitlines()
