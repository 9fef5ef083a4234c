"""The settings of a cluster on the tasks of a pipeline: resources, nodes, secrets, volumes, user, retries."""

from collections.abc import Iterable
from typing import Any

from kfp import dsl, kubernetes

from components import images
from crops.config.kubeflow import KubeflowConfig, Pod

ROLES = {images.MINING: "mine", images.TRAINING: "train"}


def tune(tasks: Iterable[dsl.PipelineTask], cfg: KubeflowConfig) -> None:
    """Applies `cfg` to every task of a pipeline that is being traced."""
    for task in tasks:
        if task.container_spec is None:  # an importer has no pod
            continue
        component = task.component_spec.name
        pod = cfg.tasks.get(component, cfg.pod)
        role = ROLES[task.container_spec.image]
        if role in cfg.images:
            task.set_container_image(cfg.images[role])
        _resources(task, pod)
        _place(task, pod)
        _shared(task, cfg)


def _resources(task: Any, pod: Pod) -> None:
    if pod.cpu:
        task.set_cpu_request(pod.cpu)
    if limit := pod.cpu_limit or pod.cpu:
        task.set_cpu_limit(limit)
    if pod.memory:
        task.set_memory_request(pod.memory)
    if limit := pod.memory_limit or pod.memory:
        task.set_memory_limit(limit)
    if pod.gpus:
        task.set_accelerator_type(pod.gpu_type).set_accelerator_limit(pod.gpus)
    if pod.retries:
        task.set_retry(pod.retries, backoff_duration="30s", backoff_factor=2)
    if pod.timeout_s:
        kubernetes.set_timeout(task, pod.timeout_s)


def _place(task: Any, pod: Pod) -> None:
    for key, value in pod.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in pod.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))


def _shared(task: Any, cfg: KubeflowConfig) -> None:
    kubernetes.set_security_context(
        task, run_as_user=cfg.run_as_user, run_as_group=cfg.run_as_user, run_as_non_root=True
    )
    kubernetes.set_image_pull_policy(task, cfg.pull_policy)
    if cfg.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cfg.pull_secrets))
    for secret in cfg.secrets:
        kubernetes.use_secret_as_env(task, secret.name, dict(secret.keys))
    for volume in cfg.volumes:
        kubernetes.mount_pvc(task, volume.claim, volume.path, volume.sub_path)
