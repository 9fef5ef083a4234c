"""A release's encoder to the Hugging Face Hub, as a repository that sentence-transformers opens by its name.

Only the encoder and its card go. Catalogue, index, training pairs and probe queries are of somebody's log,
and stay; the ONNX files are for this project's serving, and others would take them for theirs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crops.errors import InputError, ServiceError
from crops.release import card, layout

README = "README.md"
BRANCH = "main"
DOCUMENTS = "-documents"  # behind the name: the repository of the documents' tower


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One repository as it will be: files by their path in it, and its card."""

    repository: str
    files: Mapping[str, Path]
    readme: str

    def sizes(self) -> dict[str, int]:
        """Bytes by path, the card among them."""
        told = {name: path.stat().st_size for name, path in self.files.items()}
        return dict(sorted({**told, README: len(self.readme.encode())}.items()))


def uploads(release: Path, repository: str) -> list[Upload]:
    """The repositories of a release: `repository`, and one for documents where they have their own tower.

    An InputError where `repository` is no OWNER/NAME, where a file is not what was registered, or where the
    release has no folder for other libraries.
    """
    if not card.HUB_NAME.fullmatch(repository):
        raise InputError("--repository", f"{repository!r} is not OWNER/NAME")
    folders = {layout.HUB: repository, layout.HUB_DOCUMENTS: f"{repository}{DOCUMENTS}"}
    if not (release / layout.HUB).is_dir():
        raise InputError(
            release / layout.HUB, "no such folder in this release; export.sentence_transformers makes it"
        )
    layout.check(release, wanted=lambda name: name == layout.CARD or name.split("/")[0] in folders)
    written = (release / layout.CARD).read_text(encoding="utf-8")
    return [
        Upload(
            repository=name, files=_files(release / folder), readme=card.of_repository(written, name, folder)
        )
        for folder, name in folders.items()
        if (release / folder).is_dir()
    ]


def push(made: Iterable[Upload], *, private: bool = True, branch: str = BRANCH, message: str) -> list[str]:
    """Makes each repository what its upload says, in one commit; returns the commits' addresses.

    Address and token are the library's own (HF_ENDPOINT, HF_TOKEN, or `hf auth login`). private: of a
    repository that is not there yet. A ServiceError where the Hub refuses or does not answer.
    """
    import httpx
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api, commits = HfApi(), []
    for upload in made:
        name = upload.repository
        try:
            api.create_repo(name, private=private, exist_ok=True)
            if branch != BRANCH:
                api.create_branch(name, branch=branch, exist_ok=True)
            there = api.list_repo_files(name, revision=branch)
            old = {path for path in there if path not in upload.sizes() and path != ".gitattributes"}
            operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
                *(CommitOperationAdd(path, file) for path, file in upload.files.items()),
                CommitOperationAdd(README, upload.readme.encode()),
                *map(CommitOperationDelete, sorted(old)),
            ]
            commit = api.create_commit(name, operations, commit_message=message, revision=branch)
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, httpx.HTTPError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ServiceError(f"{api.endpoint}: {name}: {reason[:300]}") from error
        commits.append(str(commit.commit_url))
    return commits


def _files(folder: Path) -> dict[str, Path]:
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
