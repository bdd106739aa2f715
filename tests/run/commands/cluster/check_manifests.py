"""check_manifests.py JOBSET_CRD MANIFESTS: every document against its schema, Kubernetes' own or JobSet's, unknown fields refused."""
import sys

import jsonschema
import kubernetes_validate
import yaml


def closed(schema):
    """The schema with every object of named fields taking no others."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    if schema.pop("x-kubernetes-int-or-string", False):
        schema = {"type": ["integer", "string"]}
    return schema


crd = yaml.safe_load(open(sys.argv[1]))
version = next(v for v in crd["spec"]["versions"] if v["storage"])
schema = closed(version["schema"]["openAPIV3Schema"])
schema["properties"]["metadata"] = {"type": "object"}
kinds = []
for document in yaml.safe_load_all(open(sys.argv[2])):
    kinds.append(document["kind"])
    if document["kind"] == "JobSet":
        assert document["apiVersion"] == f"{crd['spec']['group']}/{version['name']}", document["apiVersion"]
        jsonschema.validate(document, schema)
        for job in document["spec"]["replicatedJobs"]:  # what the CRD embeds, by Kubernetes' own schema
            kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]},
                                          "spec": job["template"]["spec"]}, "1.31", strict=True)
    else:
        kubernetes_validate.validate(document, "1.31", strict=True)
print("valid:", ", ".join(kinds))
