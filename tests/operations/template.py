"""CloudFormation templates with parameters put in: conditions, `Sub`, `If` and `Ref` as AWS would resolve them.

Enough of it for our own templates; a function it does not know is an error, not a guess.
"""

import json, re

import yaml

from objects import Template
from report import ROOT

PSEUDO = {"AWS::Partition": "aws", "AWS::Region": "us-east-1", "AWS::AccountId": "111122223333", "AWS::NoValue": None}


class Stack:
    """A template with parameters; resources whose condition does not hold are not there."""

    def __init__(self, name, **parameters):
        self.template = yaml.load((ROOT / "deploy/cloudformation" / name).read_text(), Loader=Template)
        defaults = {key: p.get("Default") for key, p in self.template["Parameters"].items()}
        unknown = set(parameters) - set(defaults)
        if unknown:
            raise RuntimeError(f"{name}: no parameters {sorted(unknown)}")
        self.values = {**PSEUDO, **defaults, **parameters}
        there = {key: r for key, r in self.template["Resources"].items() if self.holds(r.get("Condition"))}
        self.resources = {key: {**r, "Properties": self.resolve(r.get("Properties", {}))} for key, r in there.items()}

    def holds(self, condition):
        return condition is None or bool(self.resolve(self.template["Conditions"][condition]))

    def of(self, kind):
        """Properties of the resources of a type, by logical id."""
        return {key: r["Properties"] for key, r in self.resources.items() if r["Type"] == kind}

    def resolve(self, node):
        if isinstance(node, list):
            return [v for v in map(self.resolve, node) if v is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, value),) = node.items()
            if name == "Ref":
                return self.values[value] if value in self.values else {"Ref": value}
            if name == "Condition":
                return self.holds(value)
            if name.startswith("Fn::"):
                return self.function(name[4:], value)
        resolved = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in resolved.items() if value is not None}

    def function(self, name, value):
        if name == "Sub":
            text = re.sub(r"\$\{([^}]+)\}", lambda m: str(self.values[m.group(1)]), value)
            return json.loads(text) if text.startswith("{") else text
        if name == "If":
            return self.resolve(value[1] if self.holds(value[0]) else value[2])
        if name == "Equals":
            a, b = self.resolve(value)
            return str(a) == str(b)
        if name == "Not":
            return not self.resolve(value[0])
        if name == "And":
            return all(map(self.resolve, value))
        if name == "GetAtt":
            return {"Fn::GetAtt": value}
        raise RuntimeError(f"function {name} is not known here")
