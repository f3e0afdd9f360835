"""Writes the table in k8s/chart/README.md and the descriptions in values.schema.json from the comments in values.yaml.

    tests/manifests.sh --write     writes both
    chart-values.py                checks that both are current, and that every value has a comment and a schema

The comment above a value describes it. `## Title` starts a section. A map whose first member has a comment is a group;
every other map is one value.
"""

import json
import pathlib
import sys

import yaml

CHART = pathlib.Path(__file__).parent.parent / "k8s" / "chart"
START, END = "<!-- values: tests/manifests.sh --write writes them from values.yaml -->\n", "<!-- /values -->\n"


def comment(lines, key):
    """Returns the comment above a key."""
    end = start = key.start_mark.line
    while lines[start - 1].lstrip().startswith("# "):
        start -= 1
    return " ".join(line.strip().removeprefix("# ") for line in lines[start:end])


def values(lines, node, path=()):
    """Yields the line, path, description and node of each value; the node of a group is None."""
    for key, value in node.value:
        said = comment(lines, key)
        if not said:
            sys.exit(f"values.yaml:{key.start_mark.line + 1}: no comment above {key.value}")
        group = isinstance(value, yaml.MappingNode) and value.value and comment(lines, value.value[0][0])
        yield key.start_mark.line, (*path, key.value), said, None if group else value
        if group:
            yield from values(lines, value, (*path, key.value))


def table(lines, found):
    """Returns a table for each section."""
    titles = {number: line.removeprefix("## ") for number, line in enumerate(lines) if line.startswith("## ")}
    rows = {line: (".".join(path), said, node) for line, path, said, node in found}
    text = ""
    for line in sorted(titles | rows):
        if line in titles:
            text += f"\n### {titles[line]}\n\n| value | default | description |\n|---|---|---|\n"
        else:
            name, said, node = rows[line]
            default = node and json.dumps(yaml.SafeLoader("").construct_object(node, deep=True), ensure_ascii=False)
            text += f"| `{name}` | {f'`{default}`' if node else ''} | {said} |\n"
    return f"{text}\n"


def describe(schema, found):
    """Sets the descriptions in the schema, whose members must be the values."""
    names = {path for _, path, _, _ in found}
    for _, path, said, node in found:
        member, parent = schema, None
        for name in path:
            parent, member = member, member.get("properties", {}).get(name)
            if member is None:
                sys.exit(f"values.schema.json has no {'.'.join(path)}")
        extra = {(*path[:-1], name) for name in parent["properties"]} - names - {("global",)}
        if extra:
            sys.exit(f"values.schema.json has members that values.yaml does not have: {sorted(extra)}")
        parent["properties"][path[-1]] = {"description": said} | {k: v for k, v in member.items() if k != "description"}


def main():
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    found = list(values(lines, yaml.compose(text)))
    schema = json.loads((CHART / "values.schema.json").read_text())
    describe(schema, found)
    before, rest = (CHART / "README.md").read_text().split(START)
    readme = before + START + table(lines, found) + END + rest.split(END)[1]
    for name, new in ("values.schema.json", json.dumps(schema, indent=2, ensure_ascii=False) + "\n"), ("README.md", readme):
        if sys.argv[1:] == ["--write"]:
            (CHART / name).write_text(new)
        elif (CHART / name).read_text() != new:
            sys.exit(f"k8s/chart/{name} is not what values.yaml says: run tests/manifests.sh --write")
    print(f"ok      chart: README.md and values.schema.json describe the {len(found)} members of values.yaml")


main()
