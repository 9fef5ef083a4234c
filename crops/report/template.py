"""The pages' templates, filled in; what is not marked as safe is escaped."""

from typing import Any


def render(name: str, **values: Any) -> str:
    """The template `name` of this folder with `values`; a name that it lacks is empty."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crops.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    return environment.get_template(name).render(**values)
