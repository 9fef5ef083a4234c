"""One table of systems: no other file of the product spells their names."""

import re
from pathlib import Path

from crops.retriever import systems

ROOT = Path(__file__).parents[3]
# `crops` is also the product and `clicks` a column: only rooms that know systems are searched for them.
AMBIGUOUS = {systems.BASE, systems.BASELINE, systems.CHALLENGER}


def test_the_names_of_the_systems_stand_once():
    files = [
        path for top in ("crops", "components", "pipelines") for path in sorted((ROOT / top).rglob("*.py"))
    ]
    assert len(files) > 100
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}
    names = set(systems.SYSTEMS) - AMBIGUOUS
    assert names == {"clicks_mnrl", "crops_paper", "crops_no_knowledge"}
    for name in names:
        assert [p for p, text in texts.items() if f'"{name}"' in text] == ["crops/retriever/systems.py"], name
    learning = (
        "components/",
        "pipelines/",
        "crops/evaluation",
        "crops/report",
        "crops/stages/learn",
        "crops/retriever",
    )
    for path in (p for p in texts if p.startswith(learning) and p != "crops/retriever/systems.py"):
        # `base` is also the word for what is trained from.
        spelt = {name for name in AMBIGUOUS - {systems.BASE} if re.search(rf'["\']{name}["\']', texts[path])}
        allowed = {"crops/evaluation/claims.py": {"clicks"}, "crops/evaluation/sets.py": {"clicks"}}
        allowed |= {"crops/report/first_look.py": {"clicks"}}  # how many there are
        # Rows of the paper's tables, a column, the charts' salt, the folder of a cache.
        allowed |= {"crops/report/charts.py": {"crops"}, "crops/retriever/static.py": {"crops"}}
        assert spelt <= allowed.get(path, set()), f"{path} spells {sorted(spelt)}"


def test_every_system_is_in_the_report_once():
    others = "crops_bm25", "crops_reranked", "crops_generative", "crops_generative_fused"
    assert sorted(systems.SHOWN) == sorted({*systems.SYSTEMS, "bm25", "champion", *others})
    assert (
        *("bm25", "champion", "base", "clicks", "clicks_mnrl"),
        *("crops_no_knowledge", "crops_paper", "crops", *others),
    ) == systems.SHOWN
