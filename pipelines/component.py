"""`python3 -m pipelines.component`: a component by KFP's own executor, from the code of the image it runs in.

What is submitted to a cluster names this in place of each component's source, which KFP repeats for every
task: in its driver's inputs, in the pod that the driver asks for, and again for every retry.
"""

import os
import sys
from pathlib import Path

import components

COMMAND = ["python3", "-m", "pipelines.component"]


def main() -> None:
    """Runs the component that --function_to_execute names; the other arguments are the executor's."""
    # As the script that KFP makes of a source: without the SDK, whose import takes seconds. The decorator is
    # part of the SDK, and of no use here.
    os.environ["_KFP_RUNTIME"] = "true"
    from kfp import dsl
    from kfp.dsl.executor_main import executor_main

    dsl.component = lambda **_about: lambda function: function
    name = sys.argv[sys.argv.index("--function_to_execute") + 1]
    sys.argv += ["--component_module_path", str(Path(components.__path__[0]) / f"{name}.py")]
    executor_main()


if __name__ == "__main__":
    main()
