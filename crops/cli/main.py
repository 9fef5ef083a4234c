"""The table of verbs; `crops` and `python -m crops` start here."""

import click

from crops import cores
from crops.cli.support import Verbs, guarded

# verb -> (module, the line in `crops --help`)
VERBS = {
    "world": ("crops.cli.data", "write the input tables of a simulated short-video platform"),
    "world-llm": ("crops.cli.data", "serve the simulated world's OpenAI-compatible LLM"),
    "import": ("crops.cli.data", "convert your search log, or a public data set, to the tables"),
    "look": ("crops.cli.data", "a first look at a log: what is there, what it can be used for, is it enough"),
    "validate": ("crops.cli.data", "check the logs: Data Docs, accepted rows, quarantine"),
    "augment": ("crops.cli.mine", "mine positives from clicks, reformulations and the feed; test sets"),
    "knowledge": ("crops.cli.mine", "ask an LLM for descriptions of videos that would answer the query"),
    "theta": ("crops.cli.mine", "train and calibrate the discriminator θ: the first half of discriminate"),
    "score": ("crops.cli.mine", "score the pairs that θ gates, or a shard of them: the second half of it"),
    "discriminate": ("crops.cli.mine", "train and calibrate the discriminator, score and gate the pairs"),
    "label": ("crops.cli.mine", "grade every sample 0..5, measure the ladder, choose the hierarchy"),
    "train": ("crops.cli.fit", "train one system of the dual encoder"),
    "export": ("crops.cli.fit", "write the query encoder as ONNX with its tokenizer"),
    "index": ("crops.cli.fit", "encode the catalogue and build the FAISS index"),
    "evaluate": ("crops.cli.fit", "recall, nDCG and intervals of all systems on all test sets"),
    "gate": ("crops.cli.release", "challenger against champion: promote, reject or unknown"),
    "register": ("crops.cli.release", "register encoder and index as one MLflow model version"),
    "run": ("crops.cli.release", "all of the above as one pipeline on this machine, ending in a report"),
    "submit": ("crops.cli.release", "a pipeline on Kubeflow: compile, upload, run, wait for the verdict"),
    "refresh": ("crops.cli.release", "new videos into the champion's index, and that into service"),
    "deploy": (
        "crops.cli.serve",
        "a registered release to Triton and into the manifest that gateways follow",
    ),
    "pull": ("crops.cli.serve", "a pinned release as the first champion of a new installation"),
    "serve": ("crops.cli.serve", "Triton and the gateway on this machine: searches answered, events logged"),
    "embed": (
        "crops.cli.serve",
        "vectors of documents for any vector store, as the release's index has them",
    ),
    "push-to-hub": ("crops.cli.serve", "a release's encoder and its card to the Hugging Face Hub"),
    "compact": ("crops.cli.serve", "event logs to the tables that the next training reads"),
    "retrain-hook": ("crops.cli.serve", "a drift alert of Alertmanager starts a training in your CI"),
    "rollout": ("crops.cli.rollout", "canary and A/B of a challenger: start, status, step, abort"),
    "ablate": ("crops.cli.fit", "the paper's tables 3 and 4 and its open questions, re-run on a log"),
    "judge": ("crops.cli.judge", "ask people about a blinded sample of pairs, and read their grades back"),
    "experiment": ("crops.cli.experiment", "the A/B readout of an experiment: lifts, intervals, verdict"),
    "config": ("crops.cli.data", "print the default config, every key with what it does and why"),
}


@click.group(
    cls=Verbs,
    verbs=VERBS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="crops")
@click.pass_context
def main(ctx: click.Context) -> None:
    """CroPS: from a search log and a feed log to a better query encoder.

    Start with `crops world --out logs --seed 0 --scale small`, then `crops run --logs logs --out runs/first`
    and open runs/first/report.html. `crops look DIR` says how a log of your own gets there.

    Your shell completes verbs and options after `eval "$(_CROPS_COMPLETE=bash_source crops)"` (zsh_source,
    fish_source).
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run() -> None:
    """The console script."""
    cores.hold()
    guarded(lambda: main(standalone_mode=False))
