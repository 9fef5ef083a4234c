"""The training pipeline: two logs to a gated, registered release. Wiring only.

Mining is one query plan inside `augment`; what costs is parallel: per shard of the queries θ scores the
pairs that it gates while the LLM answers for P3 (knowledge), the four systems are trained side by side, two
of them are exported and indexed.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kfp import dsl
from kfp.dsl import pipeline_context

from components import (
    augment,
    baseline,
    champion,
    deploy,
    discriminate,
    evaluate,
    export,
    finish,
    gate,
    index,
    knowledge,
    label,
    register,
    report,
    score,
    theta,
    train,
    validate,
)
from crops.retriever import systems

SYSTEMS = tuple(systems.SYSTEMS)


Tune = Callable[[Iterable[dsl.PipelineTask]], None]


def build(fit: Callable[..., dsl.PipelineTask] = train.train, tune: Tune = lambda _tasks: None) -> Any:
    """The pipeline. `fit`: the component that trains a system; `tune`: gives all its tasks what a cluster
    asks for.
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
            valid = validate.validate(logs=raw, fingerprint=fingerprint, config=validate_config).outputs[
                "out"
            ]
            held = champion.champion(
                registry=registry, fingerprint=fingerprint, config=register_config
            ).outputs["out"]
            mined = augment.augment(logs=valid, config=augment_config).outputs["out"]
            judge = theta.theta(logs=valid, candidates=mined, config=discriminate_config).outputs["out"]
            with dsl.ParallelFor(shards) as shard:
                asked = knowledge.knowledge(
                    logs=valid,
                    candidates=mined,
                    llm=llm,
                    checkpoints=checkpoints,
                    shard=shard,
                    config=knowledge_config,
                )
                rated = score.score(theta=judge, candidates=mined, shard=shard)

            def shared() -> dict[str, dsl.Collected]:
                """What all shards made; KFP wants a Collected of its own for each task that reads it."""
                tasks = {"knowledge": asked, "scores": rated}
                return {name: dsl.Collected(task.outputs["out"]) for name, task in tasks.items()}

            scored = discriminate.discriminate(
                logs=valid,
                candidates=mined,
                champion=held,
                theta=judge,
                source=raw,
                config=discriminate_config,
                **shared(),
            ).outputs["out"]
            samples = label.label(scored=scored, source=raw, config=label_config).outputs["out"]
            encoders = {
                system: fit(
                    samples=samples,
                    documents=mined,
                    system=system,
                    checkpoints=checkpoints,
                    registry=registry,
                    config=train_config,
                ).outputs["out"]
                for system in SYSTEMS
            }
            exported, indexed = {}, {}
            for system in ("clicks", "crops"):
                onnx = export.export(encoder=encoders[system], system=system, config=export_config).outputs[
                    "out"
                ]
                exported[system] = onnx
                indexed[system] = index.index(
                    exported=onnx, documents=mined, system=system, config=index_config
                ).outputs["out"]
            evaluated = evaluate.evaluate(
                documents=mined,
                tests=scored,
                logs=valid,
                source=raw,
                champion=held,
                config=evaluate_config,
                **encoders,
            ).outputs["out"]
            common = {"documents": mined, "samples": samples, "evaluated": evaluated, "registry": registry}
            first = baseline.baseline(
                exported=exported["clicks"],
                indexed=indexed["clicks"],
                champion=held,
                config=register_config,
                **common,
            ).outputs["out"]
            verdict = gate.gate(
                evaluated=evaluated,
                exported=exported["crops"],
                indexed=indexed["crops"],
                baseline=first,
                config=gate_config,
            ).outputs["out"]
            release = register.register(
                exported=exported["crops"],
                indexed=indexed["crops"],
                verdict=verdict,
                config=register_config,
                **common,
            ).outputs["out"]
            deploy.deploy(register=release, registry=registry, config=deploy_config)
            report.report(
                source=raw,
                validate=valid,
                augment=mined,
                champion=held,
                theta=judge,
                discriminate=scored,
                label=samples,
                exported=exported["crops"],
                indexed=indexed["crops"],
                evaluated=evaluated,
                baseline=first,
                gate=verdict,
                register=release,
                config=report_config,
                **shared(),
                **encoders,
            )
        tune(pipeline_context.Pipeline.get_default_pipeline().tasks.values())

    return training


training = build()
