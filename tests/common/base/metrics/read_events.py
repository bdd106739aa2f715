"""Reads the event files of tensorboard_test.cc with the tensorboard package, its plugins included, and compares. Exits 77
where the package is not installed."""
import sys

try:
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
    from tensorboard.plugins.text import text_plugin
except ImportError as error:
    print("no tensorboard here:", error)
    sys.exit(77)

folder = sys.argv[1]
multiplexer = plugin_event_multiplexer.EventMultiplexer(size_guidance={"scalars": 0, "tensors": 0})
multiplexer.AddRunsFromDirectory(folder)
multiplexer.Reload()
data = data_provider.MultiplexerDataProvider(multiplexer, folder)
context = RequestContext()


def same(what, found, expected):
    if found != expected:
        print(f"{what}: found {found!r}, expected {expected!r}")
        sys.exit(1)


scalars = data.read_scalars(context, experiment_id="", plugin_name="scalars", downsample=100)
same("runs", list(scalars), ["run"])
same("reward/mean", [(s.step, s.wall_time, s.value) for s in scalars["run"]["reward/mean"]],
     [(0, 10.0, 0.0), (1, 10.0, 1.0), (2, 20.0, 20.0)])
same("a value that is not finite", [s.value != s.value for s in scalars["run"]["optim/grad_norm"]], [True])

texts = data.read_tensors(context, experiment_id="", plugin_name="text", downsample=100)
same("samples", [(t.step, t.numpy.item()) for t in texts["run"]["samples"]],
     [(0, b"first"), (2, b"**Reward 1**\n\n```text\n<b>`a`</b>\n```\n")])
plugin = text_plugin.TextPlugin(base_plugin.TBContext(data_provider=data, logdir=folder, multiplexer=multiplexer))
shown = plugin.text_impl(context, "run", "samples", "", True)[-1]["text"]
same("strong as markdown says", "<strong>Reward 1</strong>" in shown, True)
same("what a model wrote stays text", "&lt;b&gt;`a`&lt;/b&gt;" in shown, True)

hparams = backend_context.Context(base_plugin.TBContext(data_provider=data))
experiment = get_experiment.Handler(context, hparams, "", api_pb2.GetExperimentRequest()).run()
same("names", sorted(info.name for info in experiment.hparam_infos), ["algorithm.name", "optimizer.learning_rate"])
request = api_pb2.ListSessionGroupsRequest(
    start_index=0, slice_size=10,
    allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING],
    col_params=[api_pb2.ColParams(metric=api_pb2.MetricName(tag="reward/mean"))])
groups = list_session_groups.Handler(context, hparams, "", request).run().session_groups
same("groups", len(groups), 1)
same("algorithm.name", groups[0].hparams["algorithm.name"].string_value, "grpo")
same("optimizer.learning_rate", groups[0].hparams["optimizer.learning_rate"].number_value, 1e-5)
same("status", groups[0].sessions[0].status, api_pb2.STATUS_SUCCESS)
same("times", (groups[0].sessions[0].start_time_secs, groups[0].sessions[0].end_time_secs), (10.0, 21.0))
same("the last value", [(m.name.tag, m.value) for m in groups[0].metric_values if m.name.tag == "reward/mean"], [("reward/mean", 20.0)])
print("TensorBoard reads what was written")
