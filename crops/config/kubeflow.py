"""Settings of `crops submit`: the training pipeline on Kubeflow."""

from typing import Literal, Self

from pydantic import Field, model_validator

from crops.config.base import StageConfig

COMPONENTS = (
    "validate",
    "champion",
    "augment",
    "theta",
    "knowledge",
    "score",
    "discriminate",
    "label",
    "train",
    "evaluate",
    "refit",
    "first",
    "export",
    "index",
    "baseline",
    "gate",
    "register",
    "deploy",
    "report",
    "finish",
    "refresh",
    "adopt",
    "follow",
)


class Toleration(StageConfig):
    """A taint that a task's pod may stand on."""

    key: str = Field(min_length=1)
    """Key of the taint."""
    operator: Literal["Equal", "Exists"] = "Exists"
    """Exists needs no value."""
    value: str | None = None
    """Value of the taint, with Equal."""
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None
    """null: any effect."""


class Pod(StageConfig):
    """What a task's pod asks for; null leaves the cluster's default."""

    cpu: str | None = None
    """Request, e.g. '4'; its limit too unless cpu_limit says otherwise."""
    memory: str | None = None
    """Request, e.g. 16G; its limit too unless memory_limit says otherwise."""
    cpu_limit: str | None = None
    """More than the request, where nodes are small: a short task starts anywhere and is not slowed down."""
    memory_limit: str | None = None
    """More than the request."""
    gpus: int = Field(0, ge=0)
    """GPUs."""
    gpu_type: str = "nvidia.com/gpu"
    """The GPU's resource name."""
    node_selector: dict[str, str] = Field({})
    """Labels of the nodes it may run on."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that it tolerates."""
    timeout_s: int | None = Field(None, gt=0)
    """Seconds after which the pod is ended."""
    retries: int = Field(0, ge=0)
    """Times that a failed task is started again; stages go on where they were."""


class Secret(StageConfig):
    """A Secret whose keys become environment variables: names only, never values."""

    name: str = Field(min_length=1)
    """Name of the Secret."""
    keys: dict[str, str] = Field(min_length=1)
    """Key of the Secret -> environment variable."""


class Volume(StageConfig):
    """A PersistentVolumeClaim in every task, for logs, checkpoints and releases."""

    claim: str = Field(min_length=1)
    """Name of the claim."""
    path: str = Field(pattern="^/")
    """Where tasks see it."""
    sub_path: str = ""
    """Folder in it."""


class TrainJob(StageConfig):
    """Training on several GPUs: a Kubeflow Trainer v2 TrainJob in place of the task `train`."""

    namespace: str = Field(min_length=1)
    """Where TrainJobs are made."""
    runtime: str = Field("torch-distributed", min_length=1)
    """Name of the (Cluster)TrainingRuntime."""
    nodes: int = Field(1, ge=1)
    """Pods."""
    gpus: int = Field(1, ge=0)
    """GPUs, and training processes, of a pod; 0: one process on the CPU."""
    cpu: str | None = None
    """Request and limit of a pod; null: those of tasks.train, else of `pod`."""
    memory: str | None = None
    """Request and limit of a pod; null: those of tasks.train, else of `pod`."""
    claim: str = Field(min_length=1)
    """Claim that the task and the TrainJob's pods share."""
    path: str = Field(pattern="^/")
    """Where all of them see it; the samples pass through it."""
    timeout_s: int = Field(172_800, gt=0)
    """Seconds after which it counts as failed: two days, the paper took 88 hours."""
    poll_s: float = Field(5.0, gt=0)
    """Seconds between two looks at its status."""


class KubeflowConfig(StageConfig):
    """The training pipeline on Kubeflow: where it runs, in which images, with what."""

    namespace: str | None = None
    """Namespace of the run, where KFP is multi-user. Source: the cluster."""
    experiment: str = Field("crops", min_length=1)
    """KFP experiment of the runs. Source: ours."""
    pipeline: str = Field("crops-training", min_length=1)
    """Name of the uploaded pipeline. Source: ours."""
    service_account: str | None = None
    """ServiceAccount of the pods; null: KFP's. Source: the cluster."""
    images: dict[Literal["mine", "train"], str] = Field({})
    """Role -> image with digest, as pushed to your registry; empty: crops/ROLE:VERSION. Source: the cluster.
    """
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Source: Kubernetes."""
    pull_secrets: tuple[str, ...] = ()
    """Names of Secrets for the registry. Source: the cluster."""
    run_as_user: int = Field(10001, ge=1)
    """User id of the tasks; never root. Source: docker/."""
    pod: Pod = Field(default_factory=lambda: Pod.model_validate({}))
    """What every task asks for. Source: ours."""
    tasks: dict[str, Pod] = Field({})
    """The same by component, in place of `pod`, e.g. train. Source: ours."""
    secrets: tuple[Secret, ...] = ()
    """Secrets as environment variables of every task. Source: the cluster."""
    volumes: tuple[Volume, ...] = ()
    """Claims mounted in every task. Source: the cluster."""
    train_job: TrainJob | None = None
    """null: training is one task on one node. Source: ours."""
    results: str | None = None
    """fsspec URL under which a run publishes report.json and report.html, for `crops submit` to read the
    verdict. Source: the cluster.
    """
    poll_s: float = Field(15.0, gt=0)
    """Seconds between two looks at a run. Source: ours."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted(self.tasks.keys() - set(COMPONENTS)):
            raise ValueError(f"tasks knows no component {unknown[0]!r}; components: {', '.join(COMPONENTS)}")
        if latest := [
            image
            for image in self.images.values()
            if image.endswith(":latest") or ":" not in image.split("/")[-1]
        ]:
            raise ValueError(f"images: {latest[0]} has no fixed tag or digest")
        return self
