"""What a task of `crops run` costs before its stage begins: CPU time and memory of what KFP's executor and
its component import, beside those of torch alone.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import report

import components

FOLDER = Path(components.__path__[0])
EXECUTOR = "from kfp.dsl import *\nimport kfp.dsl.executor_main"
USE = """
import json, resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, "torch" in sys.modules]))
"""
TIMES = 3


def imports(component: Path) -> str:
    """What the body of a component imports, as a program."""
    tree = ast.parse(component.read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    lines = [ast.unparse(node) for node in function.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return "\n".join([EXECUTOR, *lines])


def cost(program: str) -> tuple[float, float, bool]:
    """CPU seconds and MB of a process that runs it, the least of TIMES, and whether torch is loaded."""
    command = [sys.executable, "-c", program + USE]
    environment = {**os.environ, "_KFP_RUNTIME": "true"}  # as KFP starts a task
    runs = [json.loads(subprocess.check_output(command, env=environment)) for _ in range(TIMES)]
    seconds, megabytes, torch = min(runs)
    return seconds, megabytes, torch


def main() -> None:
    options = report.arguments(__doc__ or "").parse_args()
    torch_s, torch_mb, _ = cost("import torch")
    rows = [["`import torch` alone", f"{torch_s:.2f}", "1.00", f"{torch_mb:.0f}", "yes"]]
    for path in sorted(FOLDER.glob("*.py")):
        if path.stem in ("__init__", "images"):
            continue
        seconds, megabytes, torch = cost(imports(path))
        rows.append(
            [
                path.stem,
                f"{seconds:.2f}",
                f"{seconds / torch_s:.2f}",
                f"{megabytes:.0f}",
                "yes" if torch else "no",
            ]
        )
    table = report.table(["task", "CPU s", "of torch's", "MB", "loads torch"], rows)
    head = (
        f"# What a task costs before its stage begins\n\n{report.machine(['kfp', 'torch', 'transformers'])}\n"
    )
    report.out("task_start", f"{head}\n{table}", write=options.write)


if __name__ == "__main__":
    main()
