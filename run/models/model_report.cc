#include "run/models/model_report.h"

#include <algorithm>
#include <cstdio>

#include "actor/pages/kv_pages.h"
#include "actor/pages/page_pools.h"
#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/size_text.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/tensor_table.h"
#include "policy_model/memory/load_check.h"

namespace plumb::run {
namespace {

using policy_model::ModelShape;
using OrderedJson = nlohmann::ordered_json;

constexpr int64_t kUsualLength = 4096;

std::string Count(int64_t n) {
  char text[32];
  if (n >= 1'000'000'000) std::snprintf(text, sizeof text, "%.2f B", static_cast<double>(n) / 1e9);
  else if (n >= 1'000'000) std::snprintf(text, sizeof text, "%.1f M", static_cast<double>(n) / 1e6);
  else return std::to_string(n);
  return text;
}

// Calls `look`; what it throws is a problem.
template <class Look>
void Try(std::vector<std::string>& problems, const Look& look) {
  try {
    look();
  } catch (const Error& e) {
    problems.emplace_back(e.what());
  }
}

int64_t WeightFiles(const std::string& folder) {
  int64_t bytes = 0;
  for (const std::string& name : RealFileSystem().List(folder)) {
    if (name.ends_with(".safetensors"))
      bytes += static_cast<int64_t>(RealFileSystem().FileSize(folder + "/" + name));
  }
  return bytes;
}

void CountParameters(const ModelReportOptions& options, ModelReport& r) {
  const policy_model::TensorTable table(*r.shape);
  r.parameters = table.parameters();
  r.active = table.active_parameters();
  r.stored = table.flat_elements();
  for (const policy_model::TensorEntry& e : table.entries()) {
    if (e.offset == table.embedding()) r.embedding = e.elements;
    else if (e.offset == table.lm_head() || e.offset == table.score()) r.head = e.elements;
  }
  r.kv_bytes_per_token = actor::KvPages::PageBytes(*r.shape, r.type(), 1);
  r.state_bytes = actor::StateBytes(*r.shape);
  r.length = options.length > 0 ? options.length : std::min(kUsualLength, r.shape->max_positions);
  if (r.length > r.shape->max_positions) {
    throw Error(ErrorCode::kInvalidArgument,
                "is " + std::to_string(r.length) + ", the model has " +
                    std::to_string(r.shape->max_positions) + " positions",
                "--length");
  }
  r.adapter.rank = options.rank;
  if (r.place.is_adapter())
    Try(r.problems, [&] { r.adapter = policy_model::ReadAdapterConfig(r.place.model).spec; });
  Try(r.problems, [&] {
    const policy_model::AdapterTable adapter(table, r.adapter);
    r.adapter_parameters = adapter.parameters();
    r.adapter_stored = adapter.flat_elements();
  });
  Try(r.problems, [&] {
    for (std::string& problem : policy_model::WhyNotLoadable(table, r.place.base))
      r.problems.push_back(r.place.base + ": " + std::move(problem));
  });
}

void LookAtText(ModelReport& r) {
  std::unique_ptr<Tokenizer> tokenizer;
  Try(r.problems, [&] { tokenizer = Tokenizer::Load(r.place.base); });
  std::unique_ptr<ChatTemplate> chat_template;
  Try(r.problems, [&] { chat_template = ChatTemplate::LoadOrNull(r.place.base); });
  r.chat_template = chat_template != nullptr;
  if (chat_template) {
    const Message hello{.role = "user", .content = "Hello"};
    const char* tools =
        R"({"tools":[{"type":"function","function":{"name":"f","description":"","parameters":{}}}]})";
    try {
      r.takes_tools = chat_template->Render(std::span(&hello, 1), true) !=
                      chat_template->Render(std::span(&hello, 1), true, tools);
    } catch (const Error& e) {
      r.problems.push_back("the chat template refuses a plain question: " + std::string(e.what()));
    }
  }
  if (!tokenizer) return;
  r.vocabulary = tokenizer->size();
  if (!r.shape) return;
  FillSpecialTokens(r.place.base, *tokenizer, *r.shape);
  if (r.vocabulary > r.shape->vocab) {
    r.problems.push_back(r.place.base + ": the tokenizer has " + std::to_string(r.vocabulary) +
                         " tokens, the model only " + std::to_string(r.shape->vocab));
  }
  for (const int32_t id : r.shape->eos_tokens)
    r.ends.emplace_back(id, std::string(tokenizer->TokenBytes(id)));
}

// The least of what the optimizer can be told to keep of a full fine-tune.
configs::OptimizerConfig Least() {
  configs::OptimizerConfig options;
  options.masters = configs::Masters::kNone;
  options.moments = configs::Moments::kInt8;
  return options;
}

// Numbers a token and layer that the pages would hold of latent attention without its latent.
int64_t Uncompressed(const ModelShape& s) {
  return s.heads * (s.latent.nope + s.latent.rope + s.latent.value);
}

OrderedJson MemoryJson(const learner::StateBytes& m) {
  return {{"weights", m.weights},
          {"masters", m.masters},
          {"gradients", m.gradients},
          {"moments", m.moments},
          {"total", m.total()}};
}

}  // namespace

int64_t ModelReport::WeightBytes(DType type) const {
  return (stored + (place.is_adapter() ? adapter_stored : 0)) *
         static_cast<int64_t>(ElementSize(type));
}
learner::StateBytes ModelReport::Full(DType type, const configs::OptimizerConfig& options) const {
  return learner::BytesOfState(stored, 0, type, options);
}
learner::StateBytes ModelReport::Lora(DType type) const {
  return learner::BytesOfState(adapter_stored, stored, type, {});
}

ModelReport ReportOnModel(const std::string& path, const ModelReportOptions& options) {
  ModelReport r;
  r.place = FindModel(path);
  r.dtype = StoredDtype(r.place.base);
  r.batch = options.batch;
  r.file_bytes = WeightFiles(r.place.base);
  if (r.place.is_adapter()) r.file_bytes += WeightFiles(r.place.model);
  Try(r.problems, [&] { r.shape = policy_model::ReadModelConfig(r.place.base); });
  if (r.shape) CountParameters(options, r);
  LookAtText(r);
  return r;
}

OrderedJson ModelReport::Json() const {
  OrderedJson out = {{"model", place.model}};
  if (place.is_adapter()) out["base"] = place.base;
  out["loads"] = problems.empty();
  out["problems"] = problems;
  out["dtype"] = dtype.empty() ? OrderedJson(nullptr) : OrderedJson(dtype);
  out["file_bytes"] = file_bytes;
  out["tokenizer_tokens"] = vocabulary < 0 ? OrderedJson(nullptr) : OrderedJson(vocabulary);
  out["chat_template"] = chat_template;
  out["tools_in_template"] = takes_tools;
  out["end_tokens"] = OrderedJson::array();
  for (const auto& [id, text] : ends) out["end_tokens"].push_back({{"id", id}, {"text", text}});
  if (!shape) return out;
  const ModelShape& s = *shape;
  out["family"] = s.family;
  out["reward_model"] = s.scalar_head;
  out["shape"] = {{"layers", s.layers},     {"hidden", s.hidden},     {"heads", s.heads},
                  {"kv_heads", s.kv_heads}, {"head_dim", s.head_dim}, {"ffn", s.ffn},
                  {"vocab", s.vocab},       {"tied", s.tied},         {"window", s.window}};
  if (s.latent.there()) {
    out["latent"] = {{"kv_rank", s.latent.kv_rank},    {"query_rank", s.latent.query_rank},
                     {"nope", s.latent.nope},          {"rope", s.latent.rope},
                     {"value", s.latent.value},        {"cached", s.cache_width()},
                     {"uncompressed", Uncompressed(s)}};
  }
  out["context"] = s.max_positions;
  out["parameters"] = {
      {"total", parameters}, {"active", active}, {"embedding", embedding}, {"head", head}};
  if (s.experts.count > 0) {
    out["experts"] = {{"count", s.experts.count},
                      {"per_token", s.experts.per_token},
                      {"widths", s.experts.widths},
                      {"shared", s.experts.shared_ffn},
                      {"fused", s.experts.fused}};
  }
  out["lora"] = {{"rank", adapter.rank},
                 {"alpha", adapter.alpha},
                 {"targets", adapter.targets},
                 {"target_pattern", adapter.target_pattern},
                 {"rslora", adapter.rslora},
                 {"rank_pattern", adapter.rank_pattern},
                 {"alpha_pattern", adapter.alpha_pattern},
                 {"parameters", adapter_parameters}};
  const int64_t kv = kv_bytes_per_token * length * batch, states = state_bytes * batch;
  out["generate_bytes"] = {{"weights", WeightBytes(type())},
                           {"kv_per_token", kv_bytes_per_token},
                           {"batch", batch},
                           {"length", length},
                           {"kv", kv},
                           {"states", states},
                           {"total", WeightBytes(type()) + kv + states}};
  out["train_bytes"] = {{"full_float32", MemoryJson(Full(DType::kFloat32))},
                        {"full_bfloat16", MemoryJson(Full(DType::kBFloat16))},
                        {"full_least", MemoryJson(Full(DType::kBFloat16, Least()))},
                        {"lora_float32", MemoryJson(Lora(DType::kFloat32))},
                        {"lora_bfloat16", MemoryJson(Lora(DType::kBFloat16))}};
  return out;
}

std::string ModelReport::Text() const {
  std::string out;
  const auto line = [&](const std::string& name, const std::string& value) {
    out += name + std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') + value + "\n";
  };
  const auto n = [](int64_t v) { return std::to_string(v); };
  line("model", place.model);
  if (place.is_adapter()) line("base", place.base);
  if (shape) {
    const ModelShape& s = *shape;
    line("family",
         s.family + (s.scalar_head ? ", a reward model (one number instead of words)" : ""));
    const std::string heads = s.latent.there()
                                  ? n(s.heads) + " heads of " + n(s.latent.nope) + " + " +
                                        n(s.latent.rope) + " (values " + n(s.latent.value) + ")"
                                  : n(s.heads) + " heads of " + n(s.head_dim) + ", " +
                                        n(s.kv_heads) + " for keys and values";
    line("shape", n(s.layers) + " layers, hidden " + n(s.hidden) + ", " + heads +
                      ", feed-forward " + n(s.ffn) +
                      (s.window > 0 ? ", windows of " + n(s.window) : ""));
    if (s.latent.there()) {
      line("latent",
           n(s.latent.kv_rank) + " + " + n(s.latent.rope) +
               " numbers a token and layer are kept, where keys and values of all heads "
               "would be " +
               n(Uncompressed(s)) +
               (s.latent.query_rank > 0 ? "; queries through " + n(s.latent.query_rank) : ""));
    }
    line("context", n(s.max_positions) + " tokens");
    if (s.experts.count > 0) {
      std::string widths;
      for (const int64_t width : s.experts.widths)
        widths += (widths.empty() ? "" : ", ") + n(width);
      line("experts", n(s.experts.count) + " a layer of width " + widths + ", " +
                          n(s.experts.per_token) + " a token" +
                          (s.experts.shared_ffn > 0
                               ? ", shared ones of " + n(s.experts.shared_ffn) + " besides"
                               : "") +
                          (s.experts.fused ? ", in one tensor a layer" : ""));
    }
    line("parameters", Count(parameters) +
                           (active < parameters ? " (" + Count(active) + " a token)" : "") +
                           ", of it embedding " + Count(embedding) +
                           (s.tied ? " (also the head)" : ", head " + Count(head)));
    line("LoRA", (place.is_adapter() ? adapter.Text() + " (this adapter): "
                                     : "rank " + n(adapter.rank) + ", all linear parts: ") +
                     Count(adapter_parameters) + " trained");
  }
  line("weights",
       (dtype.empty() ? "dtype not named" : dtype) + ", files of " + SizeText(file_bytes) +
           (shape ? ", in memory " + SizeText(WeightBytes(type())) + " with padded tensors" : ""));
  line("tokenizer", vocabulary < 0 ? "cannot be read" : n(vocabulary) + " tokens");
  line("chat template",
       chat_template ? takes_tools ? "yes, shows tools" : "yes, without tools" : "no");
  std::string texts;
  for (const auto& [id, text] : ends)
    texts += (texts.empty() ? "" : ", ") + (text.empty() ? "" : text + " ") + "(" + n(id) + ")";
  line("end tokens", !texts.empty() ? texts
                     : shape        ? "none: answers end at their limit"
                                    : "not known: they are read with the shape");
  if (shape && !shape->scalar_head) {
    const int64_t kv = kv_bytes_per_token * length * batch, states = state_bytes * batch;
    line("to generate", SizeText(WeightBytes(type()) + kv + states) + ": weights " +
                            SizeText(WeightBytes(type())) + ", keys and values " + SizeText(kv) +
                            " (" + n(batch) + " x " + n(length) + " tokens, " +
                            SizeText(kv_bytes_per_token) + " each)" +
                            (states > 0 ? ", states " + SizeText(states) + " (" + n(batch) + " x " +
                                              SizeText(state_bytes) + ", whatever the length)"
                                        : ""));
  }
  if (shape) {
    const auto parts = [&](const learner::StateBytes& m) {
      return SizeText(m.total()) + " (weights " + SizeText(m.weights) +
             (m.masters > 0 ? ", masters " + SizeText(m.masters) : "") + ", gradients " +
             SizeText(m.gradients) + ", moments " + SizeText(m.moments) + ")";
    };
    const auto memory = [&](const char* name, const learner::StateBytes& f,
                            const learner::StateBytes& b) {
      line(name, "float32 " + parts(f));
      line("", "bfloat16 " + parts(b));
    };
    memory("to train", Full(DType::kFloat32), Full(DType::kBFloat16));
    line("", "masters = none, moments = int8: " + parts(Full(DType::kBFloat16, Least())));
    memory("with LoRA", Lora(DType::kFloat32), Lora(DType::kBFloat16));
    line("",
         "activations, a reference (once the weights; none with LoRA) and a critic not counted: "
         "`plumb plan RECIPE` counts them");
  }
  if (problems.empty()) {
    line("loads", "yes");
  } else {
    line("loads", "no:");
    for (const std::string& problem : problems) out += "  - " + problem + "\n";
  }
  return out;
}

}  // namespace plumb::run
