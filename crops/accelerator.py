"""Where models compute: on a GPU where this process sees one, unless CROPS_DEVICE says otherwise.

CROPS_DEVICE=cpu crops evaluate ...       # leave the GPU to somebody else
CROPS_DEVICE=cuda:1 crops theta ...       # the second one
"""

import os
from typing import TYPE_CHECKING

from crops.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICE, AUTO = "CROPS_DEVICE", "auto"
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def device() -> "torch.device":
    """For torch: what CROPS_DEVICE names as torch does (cpu, cuda, cuda:1), by default (auto) the GPU of this
    process, or the CPU where there is none. A ConfigError where that device is not there.
    """
    import torch

    name = os.environ.get(DEVICE) or AUTO
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"{DEVICE} is {name!r}, expected {AUTO}, cpu or a GPU of torch: {reason}"
        ) from error
    return chosen


def providers() -> list[str | tuple[str, dict[str, str]]]:
    """For ONNX Runtime, in the order in which they are tried: CUDA's where its build has it and CROPS_DEVICE
    does not name the CPU, then the CPU's.
    """
    import onnxruntime

    name = os.environ.get(DEVICE) or AUTO
    if name == "cpu" or CUDA not in onnxruntime.get_available_providers():
        return [CPU]
    return [(CUDA, {"device_id": name.partition(":")[2] or "0"}), CPU]
