"""The documents say what the schema, the formats and the tables declare."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rvga import formats, tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("*.md")])
USAGE = (REPOSITORY / "docs/usage.md").read_text()
DATA_MODEL = (REPOSITORY / "docs/data_model.md").read_text()
SCHEMA = json.loads((REPOSITORY / "nextflow_schema.json").read_text())
GROUPS = [SCHEMA["$defs"][group["$ref"].rsplit("/", 1)[-1]] for group in SCHEMA["allOf"]]
PARAMETERS = {name: entry for group in GROUPS for name, entry in group["properties"].items()}


def section(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    lines = text.splitlines()
    first = lines.index(heading)
    level = len(heading) - len(heading.lstrip("#"))
    below: list[str] = []
    fenced = False
    for line in lines[first + 1 :]:
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{level}}} ", line):
            break
        below.append(line)
    return "\n".join(below)


def table_rows(text: str) -> dict[str, list[str]]:
    """Return the rows of Markdown tables whose first cell is code: name to the other cells."""
    rows: dict[str, list[str]] = {}
    for line in text.splitlines():
        if not line.startswith("| `"):
            continue
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        name = cells[0].strip("`")
        assert name not in rows, f"{name} stands there twice"
        rows[name] = cells[1:]
    return rows


def default_text(entry: dict) -> str:
    if "default" not in entry:
        return ""
    value = entry["default"]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def range_text(entry: dict) -> str:
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {entry[key]}" for key, word in words.items() if key in entry]
    if bounds:
        return " and ".join(bounds)
    if entry.get("exists"):
        return "existing file" + (" or folder" if entry["format"] == "path" else "")
    return f"matches `{entry['pattern']}`" if "pattern" in entry else ""


def test_usage_lists_every_parameter_and_no_other():
    listed = table_rows(section(USAGE, "## Parameters"))
    assert list(listed) == list(PARAMETERS)


@pytest.mark.parametrize("group", GROUPS, ids=[group["title"] for group in GROUPS])
def test_usage_groups_the_parameters_as_the_schema(group):
    text = section(section(USAGE, "## Parameters"), f"### {group['title']}")
    assert list(table_rows(text)) == list(group["properties"])


@pytest.mark.parametrize("name", PARAMETERS)
def test_usage_gives_each_parameter_as_the_schema(name):
    entry = PARAMETERS[name]
    row = table_rows(section(USAGE, "## Parameters"))[name]
    assert row == [entry["type"], default_text(entry), range_text(entry), entry["description"]]


@pytest.mark.parametrize("name", formats.KINDS)
def test_data_model_lists_datasets_and_attributes_of_each_kind(name):
    kind = formats.KINDS[name]
    text = section(DATA_MODEL, f"### `{name}`")
    assert f"format_version {kind.version}:" in text
    expected = {
        dataset: [
            " × ".join(entry.dimensions),
            entry.dtype,
            entry.meaning + (" (optional)" if entry.optional else ""),
        ]
        for dataset, entry in kind.datasets.items()
    }
    expected |= {attribute: [meaning] for attribute, meaning in kind.attributes.items()}
    assert table_rows(text) == expected


@pytest.mark.parametrize("name", tables.TABLES)
def test_data_model_lists_columns_of_each_table(name):
    text = section(DATA_MODEL, f"### Table `{name}`")
    assert table_rows(text) == {
        column: [meaning] for column, meaning in tables.TABLES[name].items()
    }


def test_data_model_lists_no_other_kind_or_table():
    assert re.findall(r"^### `(\w+)`$", DATA_MODEL, re.MULTILINE) == list(formats.KINDS)
    assert re.findall(r"^### Table `(\w+)`$", DATA_MODEL, re.MULTILINE) == list(tables.TABLES)


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_links_between_documents_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            anchors = {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }
            assert anchor in anchors, f"{path.name} links to {target}"
