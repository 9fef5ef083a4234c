"""What the images hold, as CycloneDX 1.6 and as a table of licences: dist/sbom/NAME.cdx.json and
dist/sbom/licences.md.

    .venv/bin/python docker/sbom.py [mine train gateway triton]

Asked of each image itself, not of the lock that it was built from: every Python distribution with its
licence, every Debian package. Ends with 1 where a Python package is under a licence that a product of this
kind cannot ship with.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("mine", "train", "gateway", "triton")
# Strong copyleft reaches what links to it; LGPL does not, for a package that can be exchanged.
FORBIDDEN = re.compile(r"(?<!L)(?<!Lesser )(AGPL|GPL|General Public)", re.IGNORECASE)
ALLOWED = re.compile(r"\bor\b|;", re.IGNORECASE)  # one of several, by choice
ASK = """
import glob, importlib.metadata, json, subprocess, sys
def licence(about):
    named = about.get("License-Expression") or "; ".join(
        c.split("::")[-1].strip() for c in about.get_all("Classifier") or []
            if c.startswith("License ::") and c.count("::") > 1)
    return named or (about.get("License") or "").strip().split(chr(10))[0][:80] or "unknown"
places = {*sys.path, *glob.glob("/opt/*/lib/python3*/site-packages")}
held = importlib.metadata.distributions(path=list(places))
python = sorted({(d.metadata["Name"], d.version, licence(d.metadata)) for d in held})
debian = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\\n"], capture_output=True,
    text=True).stdout
print(json.dumps({"python": python, "debian": [line.split() for line in debian.splitlines()]}))
"""


def held(engine: Any, image: str) -> dict[str, list[list[str]]]:
    """ "python": [name, version, licence], "debian": [name, version] of an image, by its own Python."""
    return json.loads(
        engine.containers.run(image, ["-c", ASK], entrypoint="python3", remove=True, network_disabled=True)
    )


def components(packages: dict[str, list[list[str]]]) -> Iterable[Component]:
    """One per package, with its package URL."""
    for name, version, licence in packages["python"]:
        url = PackageURL("pypi", None, re.sub(r"[-_.]+", "-", name).lower(), version)
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=url,
            bom_ref=str(url),
            licenses=[DisjunctiveLicense(name=licence)] if licence != "unknown" else [],
        )
    for name, version in packages["debian"]:
        url = PackageURL("deb", "debian", name, version)
        yield Component(type=ComponentType.LIBRARY, name=name, version=version, purl=url, bom_ref=str(url))


def bill(image: str, packages: dict[str, list[list[str]]]) -> str:
    """CycloneDX 1.6 as JSON, valid against the standard's schema."""
    bom = Bom(components=components(packages))
    name, version = image.rsplit(":", 1)
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER, name=name, version=version, bom_ref=image
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"{image}: not CycloneDX 1.6: {wrong}")
    return text


def forbidden(packages: dict[str, list[list[str]]]) -> list[str]:
    """Python packages that may only be had under a strong copyleft licence."""
    return [
        f"{n} {v}: {licence}"
        for n, v, licence in packages["python"]
        if FORBIDDEN.search(licence) and not ALLOWED.search(licence)
    ]


def table(held_by: dict[str, dict[str, list[list[str]]]]) -> str:
    """Package, version, licence, images: one row a Python package, as Markdown."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, packages in held_by.items():
        for package in packages["python"]:
            rows.setdefault(tuple(package), []).append(name)
    lines = ["| package | version | licence | images |", "|---|---|---|---|"]
    for (package, version, licence), names in sorted(rows.items(), key=lambda row: row[0][0].lower()):
        lines.append(f"| {package} | {version} | {licence.replace('|', '/')} | {', '.join(names)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Asks every named image."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument(
        "--tag", default=re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    )  # type: ignore[index]
    parser.add_argument("--out", type=Path, default=ROOT / "dist/sbom")
    arguments = parser.parse_args()
    engine, held_by, bad = docker.from_env(), {}, []
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        image = f"crops/{name}:{arguments.tag}"
        held_by[name] = held(engine, image)
        (arguments.out / f"{name}.cdx.json").write_text(bill(image, held_by[name]) + "\n", encoding="utf-8")
        bad += [f"{image}: {line}" for line in forbidden(held_by[name])]
        print(
            f"{image}: {len(held_by[name]['python'])} Python, {len(held_by[name]['debian'])} Debian packages"
        )
    (arguments.out / "licences.md").write_text(table(held_by), encoding="utf-8")
    print(f"written to {arguments.out}")
    if bad:
        sys.exit("\n".join(["licences that cannot be shipped:", *bad]))


if __name__ == "__main__":
    main()
