"""The training pipeline: two logs to a gated, registered release. Wiring only.

Mining is one query plan inside `augment`; what costs is parallel: per shard of the queries θ scores the
pairs that it gates while the LLM answers for P3 (knowledge). The systems are trained as a task each: side by
side on a cluster, with retries, which KFP ignores inside a loop; one after the other on KFP's local runner.
The challenger and what may become the first champion are exported and indexed.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from kfp import dsl
from kfp.dsl import pipeline_context
from kfp.dsl.pipeline_channel import PipelineArtifactChannel

from components import (
    augment,
    baseline,
    champion,
    deploy,
    discriminate,
    evaluate,
    export,
    finish,
    first,
    gate,
    index,
    knowledge,
    label,
    refit,
    register,
    report,
    score,
    theta,
    train,
    validate,
)
from crops.retriever.systems import CHALLENGER, FIRST, SYSTEMS

# What these read or write changes by itself: the registry, the manifest, the place of the report.
FRESH = ("champion", "baseline", "register", "deploy", "report")

Tune = Callable[[Iterable[dsl.PipelineTask]], None]


def build(
    fit: Callable[..., dsl.PipelineTask] = train.train,
    tune: Tune = lambda _tasks: None,
    *,
    parallel: bool = True,
    last_fit: bool = True,
    resumes: bool = False,
) -> Any:
    """The pipeline. `fit`: the component that trains a system; `tune`: gives all its tasks what a cluster
    asks for.

    parallel: a loop over `shards`; without, one task each (KFP ignores retries inside a loop). last_fit: with
    the task that train.last_fit may ask for. resumes: a run that goes on where it was killed; else what reads
    or moves the registry never answers from the cache.
    """

    @dsl.pipeline(name="crops-training", description="Search and feed logs to a gated, registered release.")
    def training(
        logs: str,
        fingerprint: str,
        validate_config: str,
        augment_config: str,
        knowledge_config: str,
        discriminate_config: str,
        label_config: str,
        train_config: str,
        export_config: str,
        index_config: str,
        evaluate_config: str,
        gate_config: str,
        register_config: str,
        report_config: str,
        deploy_config: str,
        llm: str = "",
        registry: str = "",
        checkpoints: str = "",
        shards: list[str] = ["0/1"],  # noqa: B006  KFP takes it as the parameter's default
    ) -> None:
        """`logs`: URI or absolute path of the tables; `fingerprint`: of their content and of the code, the
        root of caching.

        `shards`: the parts that the LLM's work and θ's are split into, e.g. ["0/2", "1/2"]: as many tasks
        side by side.
        """
        last = finish.finish().set_caching_options(False)
        with dsl.ExitHandler(last, name="training"):
            raw = dsl.importer(artifact_uri=logs, artifact_class=dsl.Dataset, reimport=False).output
            validated = validate.validate(logs=raw, fingerprint=fingerprint, config=validate_config)
            valid, beside = validated.outputs["out"], validated.outputs["beside"]
            current = _out(
                champion.champion(registry=registry, fingerprint=fingerprint, config=register_config)
            )
            mined = _out(augment.augment(logs=valid, config=augment_config))
            judge = _out(theta.theta(logs=valid, candidates=mined, config=discriminate_config))
            with dsl.ParallelFor(shards) if parallel else nullcontext("0/1") as shard:
                asked = knowledge.knowledge(
                    candidates=mined, llm=llm, checkpoints=checkpoints, shard=shard, config=knowledge_config
                )
                rated = score.score(theta=judge, candidates=mined, shard=shard)

            def of_shards() -> dict[str, Any]:
                """What all shards made; KFP wants a Collected of its own for each task that reads it."""
                outputs = {"knowledge": _out(asked), "scores": _out(rated)}
                return {
                    name: dsl.Collected(out) if parallel else _listed(out) for name, out in outputs.items()
                }

            scored = _out(
                discriminate.discriminate(
                    candidates=mined,
                    champion=current,
                    theta=judge,
                    source=beside,
                    config=discriminate_config,
                    **of_shards(),
                )
            )
            samples = _out(label.label(scored=scored, source=beside, config=label_config))
            work = {"checkpoints": checkpoints, "registry": registry, "config": train_config}
            encoders = {}
            for system in SYSTEMS:
                task = fit(samples=samples, documents=mined, system=system, **work)
                encoders[system] = _out(task.set_display_name(f"train {system}"))
            evaluated = _out(
                evaluate.evaluate(
                    documents=mined,
                    tests=scored,
                    source=beside,
                    champion=current,
                    config=evaluate_config,
                    **encoders,
                )
            )
            better = _out(first.first(evaluated=evaluated, **{name: encoders[name] for name in FIRST}))
            chosen = encoders[CHALLENGER]
            if last_fit:
                chosen = _out(
                    refit.refit(
                        encoder=chosen,
                        logs=valid,
                        documents=mined,
                        champion=current,
                        theta=judge,
                        augment_config=augment_config,
                        discriminate_config=discriminate_config,
                        label_config=label_config,
                        **work,
                        **of_shards(),
                    )
                )
            release = _released(
                {"first": better, CHALLENGER: chosen},
                current,
                judge,
                {
                    "export": export_config,
                    "index": index_config,
                    "gate": gate_config,
                    "register": register_config,
                },
                documents=mined,
                samples=samples,
                evaluated=evaluated,
                registry=registry,
            )
            deploy.deploy(register=release["register"], registry=registry, config=deploy_config)
            report.report(
                source=beside,
                validate=valid,
                augment=mined,
                champion=current,
                theta=judge,
                discriminate=scored,
                label=samples,
                released=chosen,
                evaluated=evaluated,
                config=report_config,
                **release,
                **encoders,
                **of_shards(),
            )
        tasks = pipeline_context.Pipeline.get_default_pipeline().tasks.values()
        for task in tasks:
            if task.component_spec.name in FRESH and not resumes:
                task.set_caching_options(False)
        tune(tasks)

    return training


def _released(
    encoders: Mapping[str, Any], current: Any, theta: Any, config: Mapping[str, Any], **facts: Any
) -> dict[str, Any]:
    """Export to register: what the report reads of them, by its inputs. `encoders`: what may become the first
    champion, and the challenger; `facts`: what both registrations are told.
    """
    exported, indexed = {}, {}
    for system, encoder in encoders.items():
        exported[system] = _out(
            export.export(
                encoder=encoder,
                documents=facts["documents"],
                theta=theta,
                system=system,
                config=config["export"],
            )
        )
        indexed[system] = _out(
            index.index(
                exported=exported[system], documents=facts["documents"], system=system, config=config["index"]
            )
        )
    baselined = baseline.baseline(
        exported=exported["first"],
        indexed=indexed["first"],
        champion=current,
        config=config["register"],
        **facts,
    )
    made = {"exported": exported[CHALLENGER], "indexed": indexed[CHALLENGER]}
    verdict = gate.gate(evaluated=facts["evaluated"], config=config["gate"], **made)
    verdict.after(baselined)  # the challenger is registered behind the version that may become champion
    registered = register.register(verdict=_out(verdict), config=config["register"], **made, **facts)
    tasks = {"baseline": baselined, "gate": verdict, "register": registered}
    return made | {name: _out(task) for name, task in tasks.items()}


def _out(task: dsl.PipelineTask) -> Any:
    """What a task's stage wrote."""
    return task.outputs["out"]


def _listed(one: PipelineArtifactChannel) -> PipelineArtifactChannel:
    """A task's artifact as a list of one: on the wire it is one already, only KFP's types differ."""
    return PipelineArtifactChannel(one.name, one.channel_type, one.task_name, is_artifact_list=True)


training = build()
