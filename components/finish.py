"""KFP component of the exit handler: the final status, also after a failure."""

from kfp import dsl

from components import images


@dsl.component(base_image=images.MINING, install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus, out: dsl.Output[dsl.Artifact]):
    """Writes {"state", "error"}; see crops.stages.finish.run."""
    from pathlib import Path

    from crops.stages import finish as stage

    stage.run(Path(out.path), state=status.state, error=status.error_message)
