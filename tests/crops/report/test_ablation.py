"""The ablation page of made-up recalls: every table, its claims, and the paper's numbers beside them."""

from crops.evaluation import claims, comparison
from crops.report import ablation
from crops.retriever import ablations
from tests.crops.evaluation.test_comparison import per_query


def report() -> dict:
    """Two seeds of every row of every table; row number n reaches 0.5 + n / 100."""
    names = sorted({row for table in claims.TABLES.values() for row in table.rows})
    says = ablations.variants("filtered")
    seeds = []
    for shift in (0.0, 0.001):
        recalls = {
            (row, 0): [0.5 + n / 100 + shift + q / 1000 for q in range(20)] for n, row in enumerate(names)
        }
        seeds.append(per_query(recalls).drop(columns="seed"))
    rows = {
        row: {
            "says": says[row].says,
            "anchor_min": [4, 4],
            "best_step": [9],
            "seconds": 3.2,
            "encodes": 12_000,
            "tokens": 54_321,
        }
        for row in names
    }
    compared = comparison.compared(seeds, [*claims.TABLES])
    comparison.priced(rows, compared["values"])
    return {"form": "paper", "seeds": 2, "simulated": True, "rows": rows, **compared}


def render() -> str:
    return ablation.render(report())


def test_every_table_stands_there_with_its_claims():
    html = render()
    assert "Simulated data" in html
    assert "54,321" in html
    for name, table in claims.TABLES.items():
        assert f'id="{name}"' in html
        assert table.title.replace("'", "&#39;") in html
    assert html.count("<svg") == len(claims.TABLES)
