"""The JSON Schema of config files, from the models of the tables and the signatures of the plug-ins."""

from typing import Any

from trajdesign.acquisition import Acquisition
from trajdesign.config import models, plugins
from trajdesign.config.models import Config
from trajdesign.scanner import Scanner
from trajdesign.units import GAMMA

#: A JSON Schema, or a part of one.
Schema = dict[str, Any]

#: Names of what lies outside the package.
_OWN = {"type": "string", "pattern": ":", "description": "package.module:attribute"}


def schema() -> Schema:
    """Return the schema (JSON Schema, draft 7).

    It knows the keys, types and ranges, and which options belong to which plug-in; what only several values together
    can break, the program alone finds.
    """
    document = Config.model_json_schema()
    tables, properties = document.pop("$defs"), document["properties"]
    for key, table in tables.items():
        properties[key.lower()] = table
    for key, model in (("scanner", Scanner), ("acquisition", Acquisition)):
        for name, text in plugins.explained(model).items():
            properties[key]["properties"][name]["description"] = plugins.plain(text)
    _open_scanner(properties["scanner"]["properties"])
    limits = properties["limits"]["properties"]
    limits["constraints"]["items"] = _name("constraint")
    limits["options"] = {
        "type": "object",
        "properties": {name: _options("constraint", name) for name in plugins.names("constraint")},
    }
    for key in ("init", "parameterization", "reconstructor", "data"):
        properties[key] = _plugin(key, default=properties[key]["default"]["kind"])
    start = _plugin("init", is_named=False)
    properties["start"] = {"anyOf": [start, {"type": "array", "items": start}]}
    for key in models.OPTIONAL_TABLES:
        properties[key] = {"anyOf": [{"maxProperties": 0}, _plugin(key)]}
    known = {name: _options("perturbation", name) for name in plugins.names("perturbation")}
    properties["perturbation"] = {"type": "object", "properties": known}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **document, "title": "trajdesign config"}


def _open_scanner(scanner: Schema) -> None:
    """Add what the model of the scanner does not say: its profile, and the nuclei."""
    scanner["nucleus"]["enum"] = list(GAMMA)
    scanner["profile"] = {
        "anyOf": [{"enum": models.profiles()}, {"type": "string", "pattern": "\\.toml$"}],
        "description": "Rasters and dead times of a vendor, or a TOML file of a site.",
    }


def _name(kind: str) -> Schema:
    return {"anyOf": [{"enum": plugins.names(kind)}, _OWN]}


def _plugin(kind: str, *, default: str | None = None, is_named: bool = True) -> Schema:
    """Return the schema of a plug-in's table: ``kind``, which may be missing for the default one, and its options."""
    tables = []
    for name in plugins.names(kind):
        table = _options(kind, name)
        table["properties"] = {"kind": {"const": name, "description": table["description"]}, **table["properties"]}
        if is_named and name != default:
            table["required"].append("kind")
        tables.append(table)
    own = {"title": "your own", "type": "object", "properties": {"kind": _OWN}, "required": ["kind"]}
    return {"type": "object", "anyOf": [*tables, own]}


def _options(kind: str, name: str) -> Schema:
    """Return the schema of the options of a plug-in."""
    plugin = plugins.find(kind, name)
    model = plugins.options(plugin).model_json_schema()
    properties = model.get("properties", {})
    for option, text in plugins.explained(plugin).items():
        if option in properties:
            properties[option]["description"] = plugins.plain(text)
    return {
        "title": name,
        "description": plugins.plain(plugins.summary(plugin)),
        "type": "object",
        "properties": properties,
        "required": model.get("required", []),
        "additionalProperties": False,
    }
