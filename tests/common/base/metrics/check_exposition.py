"""Checks a text of the Prometheus endpoint with what Prometheus users have: promtool's own check, or the Python client's
parser. Exits 77 where there is neither.

    check_exposition.py TEXT"""
import shutil
import subprocess
import sys

text = open(sys.argv[1], encoding="utf-8").read()
checked = []
if promtool := shutil.which("promtool"):
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    # 3: it parses, and promtool would call something otherwise. Units stand in the names of docs/metrics.md as they do
    # everywhere else.
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "should not contain abbreviated units" not in line]
    if complaints or done.returncode not in (0, 3):
        sys.exit(f"promtool: {done.returncode}: {complaints}")
    checked.append("promtool")
try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    pass
else:
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for family in families.values():
        if not family.documentation or family.type not in ("gauge", "counter"):
            sys.exit(f"{family.name}: no HELP, or of type {family.type}")
        for sample in family.samples:
            if (sample.labels.get("run"), sample.labels.get("role")) != ('a "b"\\\n', "learner"):
                sys.exit(f"{sample.name}: labels {sample.labels}")
    if families["plumb_reward_mean"].samples[0].value != 0.5 or families["plumb_dropped_groups"].type != "counter":
        sys.exit(f"other values: {families['plumb_reward_mean']}, {families['plumb_dropped_groups']}")
    checked.append("prometheus_client")
if not checked:
    print("neither promtool (apt-get install prometheus) nor prometheus_client here")
    sys.exit(77)
print("checked by", " and ".join(checked))
