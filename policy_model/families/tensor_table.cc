#include "policy_model/families/tensor_table.h"

#include "common/base/error.h"
#include "policy_model/families/experts/exact_floats.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kTensorAlign = 64;
constexpr int64_t kBucketElements = 4096 / 4 * 64;  // 4 KiB x 64 in float

int64_t RoundUp(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

int64_t TensorList::Add(std::string name, std::vector<int64_t> dims, bool decay, TensorInit init,
                        const std::vector<Part>& parts, const std::string& fused) {
  TensorEntry e;
  e.name = std::move(name);
  e.elements = 1;
  for (int64_t d : dims) e.elements *= d;
  e.shape = std::move(dims);
  e.decay = decay;
  e.init = init;
  e.offset = flat_elements_;
  int64_t row = 0;
  for (const Part& part : parts) {
    const bool whole = fused.empty();
    e.parts.push_back({.file_tensor = whole ? part.file : fused,
                       .row_begin = row,
                       .row_end = row + part.rows,
                       .file_row = whole ? 0 : row,
                       .file_rows = whole ? part.rows : e.shape[0],
                       .split = part.split});
    row += part.rows;
  }
  PLUMB_CHECK(row == e.shape[0], "parts of " + e.name);
  flat_elements_ = RoundUp(flat_elements_ + e.elements, kTensorAlign);
  parameters_ += e.elements;
  entries_.push_back(std::move(e));
  return entries_.back().offset;
}

void TensorList::MarkExpert(int64_t stack, bool by_columns, bool in_turns) {
  entries_.back().adapts = false;
  for (TensorPart& part : entries_.back().parts) {
    part.file_stack = stack;
    part.by_columns = by_columns;
    part.in_turns = in_turns;
  }
}

void TensorList::AddParameterName(std::string name, int64_t experts) {
  entries_.back().parameter = std::move(name);
  entries_.back().experts = experts;
}

void TensorList::MarkExact() {
  TensorEntry& e = entries_.back();
  e.exact = true;
  parameters_ -= e.elements - e.elements / kExactParts;
}

void TensorList::EndBucket() { flat_elements_ = RoundUp(flat_elements_, kBucketElements); }

TensorTable::TensorTable(const ModelShape& shape) : shape_(shape) {
  Validate(shape, "model");
  const Family& family = FamilyOf(shape);
  plan_ = family.plan(shape);
  names_ = family.names;
  const TensorInit norm = plan_.norm_offset == 0 ? TensorInit::kOnes : TensorInit::kZeros;
  const int64_t h = shape.hidden;
  // The backward meets the head first, then the layers from the last to the first, then the
  // embedding.
  final_norm_ = Add("final_norm", {h}, false, norm,
                    {{std::string(names_.final_norm) + ".weight", h, SplitAxis::kNone}});
  if (plan_.final_norm == NormKind::kLayer) {
    final_norm_bias_ = Add("final_norm_bias", {h}, false, TensorInit::kZeros,
                           {{std::string(names_.final_norm) + ".bias", h, SplitAxis::kNone}});
  }
  if (shape.scalar_head) {
    score_ =
        Add("score", {1, h}, true, TensorInit::kNormal, {{"score.weight", 1, SplitAxis::kNone}});
  } else if (!shape.tied) {
    lm_head_ = Add("lm_head", {shape.vocab, h}, true, TensorInit::kNormal,
                   {{"lm_head.weight", shape.vocab, SplitAxis::kRows}});
  }
  EndBucket();
  layers_.resize(static_cast<size_t>(shape.layers));
  for (int64_t l = shape.layers - 1; l >= 0; --l) {
    AddLayer(l);
    EndBucket();
  }
  embedding_ = Add("embedding", {shape.vocab, h}, true, TensorInit::kNormal,
                   {{"model.embed_tokens.weight", shape.vocab, SplitAxis::kRows}});
  EndBucket();
  if (shape.tied && !shape.scalar_head) lm_head_ = embedding_;
}

void TensorTable::AddLayer(int64_t l) {
  const LayerSpec& spec = plan_.layers[static_cast<size_t>(l)];
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden;
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".";
  const TensorInit ones = plan_.norm_offset == 0 ? TensorInit::kOnes : TensorInit::kZeros;
  const auto named = [&](const char* name, const char* suffix) {
    return name ? file + name + suffix : std::string();
  };
  const auto norm = [&](const char* name, const char* in_file, int64_t n) {
    return Add(ours + name, {n}, false, ones, {{named(in_file, ".weight"), n, SplitAxis::kNone}});
  };
  const auto norm_bias = [&](const char* name, const char* in_file) {
    return Add(ours + name, {h}, false, TensorInit::kZeros,
               {{named(in_file, ".bias"), h, SplitAxis::kNone}});
  };
  const bool biased = spec.norm == NormKind::kLayer;
  PLUMB_CHECK(!biased || (!spec.norm_behind && plan_.norm_offset == 0), "LayerNorms stand before");
  if (spec.norm_behind) s.ffn_behind = norm("ffn_behind", names_.ffn_behind, h);
  if (spec.experts.there()) AddExperts(l);
  else AddDense(l);
  if (spec.norm_before) s.ffn_norm = norm("post_norm", names_.ffn_norm, h);
  if (biased) s.ffn_norm_bias = norm_bias("post_norm_bias", names_.ffn_norm);
  if (spec.norm_behind) s.attention_behind = norm("attention_behind", names_.attention_behind, h);
  if (spec.delta.there()) AddDelta(l);
  else if (spec.conv.there()) AddConv(l);
  else AddAttention(l);
  if (spec.norm_before) s.attention_norm = norm("input_norm", names_.attention_norm, h);
  if (biased) s.attention_norm_bias = norm_bias("input_norm_bias", names_.attention_norm);
}

void TensorTable::AddAttention(int64_t l) {
  const LayerSpec& spec = plan_.layers[static_cast<size_t>(l)];
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden, d = shape_.head_dim, q = shape_.heads * d,
                kv = shape_.kv_width(), queries = spec.attention_gate ? 2 * q : q;
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".";
  const TensorInit ones = plan_.norm_offset == 0 ? TensorInit::kOnes : TensorInit::kZeros;
  const auto named = [&](const char* name, const char* suffix) {
    return name ? file + name + suffix : std::string();
  };
  const auto norm = [&](const char* name, const char* in_file, int64_t n) {
    return Add(ours + name, {n}, false, ones, {{named(in_file, ".weight"), n, SplitAxis::kNone}});
  };
  if (spec.o_bias) {
    s.o_bias = Add(ours + "o_bias", {h}, false, TensorInit::kZeros,
                   {{named(names_.o, ".bias"), h, SplitAxis::kNone}});
  }
  if (spec.latent) return AddLatent(l);
  s.o = Add(ours + "o", {h, q}, true, TensorInit::kResidual,
            {{named(names_.o, ".weight"), h, SplitAxis::kColumns}});
  s.qkv = Add(ours + "qkv", {queries + 2 * kv, h}, true, TensorInit::kNormal,
              {{file + "self_attn.q_proj.weight", queries, SplitAxis::kRows},
               {file + "self_attn.k_proj.weight", kv, SplitAxis::kRows},
               {file + "self_attn.v_proj.weight", kv, SplitAxis::kRows}},
              named(names_.qkv, ".weight"));
  if (spec.qkv_bias) {
    s.qkv_bias = Add(ours + "qkv_bias", {queries + 2 * kv}, false, TensorInit::kZeros,
                     {{file + "self_attn.q_proj.bias", queries, SplitAxis::kRows},
                      {file + "self_attn.k_proj.bias", kv, SplitAxis::kRows},
                      {file + "self_attn.v_proj.bias", kv, SplitAxis::kRows}},
                     named(names_.qkv, ".bias"));
  }
  if (spec.qk_norm != QkNorm::kNone) {
    const bool whole = spec.qk_norm == QkNorm::kFullWidth;
    s.q_norm = norm("q_norm", names_.q_norm, whole ? q : d);
    s.k_norm = norm("k_norm", names_.k_norm, whole ? kv : d);
  }
  if (spec.sinks) {
    s.sinks = Add(ours + "sinks", {shape_.heads}, false, TensorInit::kZeros,
                  {{file + "self_attn.sinks", shape_.heads, SplitAxis::kRows}});
  }
  if (spec.gate_top_k > 0) {
    s.token_gate = Add(ours + "token_gate", {1, h}, true, TensorInit::kNormal,
                       {{file + "self_attn.token_gate.weight", 1, SplitAxis::kNone}});
    MarkExpert(0);
  }
}

void TensorTable::AddLatent(int64_t l) {
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const LatentShape& a = shape_.latent;
  const int64_t h = shape_.hidden, queries = shape_.heads * (a.nope + a.rope);
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".self_attn.";
  const TensorInit ones = plan_.norm_offset == 0 ? TensorInit::kOnes : TensorInit::kZeros;
  const auto matrix = [&](const char* name, const char* in_file, int64_t rows, int64_t columns,
                          SplitAxis split) {
    return Add(ours + name, {rows, columns}, true, TensorInit::kNormal,
               {{file + in_file + ".weight", rows, split}});
  };
  const auto norm = [&](const char* name, const char* in_file, int64_t n) {
    return Add(ours + name, {n}, false, ones, {{file + in_file + ".weight", n, SplitAxis::kNone}});
  };
  s.o = Add(ours + "o", {h, shape_.heads * a.value}, true, TensorInit::kResidual,
            {{file + "o_proj.weight", h, SplitAxis::kColumns}});
  s.kv_up =
      matrix("kv_up", "kv_b_proj", shape_.heads * (a.nope + a.value), a.kv_rank, SplitAxis::kRows);
  // Generation takes it apart, between queries and keys and behind the values: A and B would have
  // to go both ways, too.
  MarkExpert(0);
  s.kv_down_norm = norm("kv_down_norm", "kv_a_layernorm", a.kv_rank);
  s.kv_down = matrix("kv_down", "kv_a_proj_with_mqa", a.kv_rank + a.rope, h, SplitAxis::kNone);
  if (a.query_rank > 0) {
    s.q = matrix("q", "q_b_proj", queries, a.query_rank, SplitAxis::kRows);
    s.q_down_norm = norm("q_down_norm", "q_a_layernorm", a.query_rank);
    s.q_down = matrix("q_down", "q_a_proj", a.query_rank, h, SplitAxis::kNone);
  } else {
    s.q = matrix("q", "q_proj", queries, h, SplitAxis::kRows);
  }
}

void TensorTable::AddDense(int64_t l) {
  const LayerSpec& spec = plan_.layers[static_cast<size_t>(l)];
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden;
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".";
  const auto named = [&](const char* name, const char* suffix) {
    return name ? file + name + suffix : std::string();
  };
  if (spec.ffn_bias) {
    s.down_bias = Add(ours + "down_bias", {h}, false, TensorInit::kZeros,
                      {{named(names_.down, ".bias"), h, SplitAxis::kNone}});
  }
  s.down = Add(ours + "down", {h, spec.ffn}, true, TensorInit::kResidual,
               {{named(names_.down, ".weight"), h, SplitAxis::kColumns}});
  // Other systems' adapters take its names for those of experts.
  if (shape_.experts.count > 0) MarkExpert(0);
  if (spec.ffn_bias) {
    s.gate_up_bias = Add(ours + "gate_up_bias", {2 * spec.ffn}, false, TensorInit::kZeros,
                         {{named(names_.gate, ".bias"), spec.ffn, SplitAxis::kRows},
                          {named(names_.up, ".bias"), spec.ffn, SplitAxis::kRows}},
                         named(names_.gate_up, ".bias"));
  }
  s.gate_up = Add(ours + "gate_up", {2 * spec.ffn, h}, true, TensorInit::kNormal,
                  {{named(names_.gate, ".weight"), spec.ffn, SplitAxis::kRows},
                   {named(names_.up, ".weight"), spec.ffn, SplitAxis::kRows}},
                  named(names_.gate_up, ".weight"));
  if (shape_.experts.count > 0) MarkExpert(0);
}

void TensorTable::AddExperts(int64_t l) {
  const ExpertsSpec& spec = plan_.layers[static_cast<size_t>(l)].experts;
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  const int64_t h = shape_.hidden, count = spec.count(), here = spec.here();
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".",
                    experts = file + names_.experts;
  const bool by_input = names_.experts_by_input, fused = shape_.experts.fused || by_input;
  if (spec.shared_ffn > 0) {
    const std::string shared = file + names_.shared;
    if (spec.shared_gate) {
      s.shared_gate = Add(ours + "shared_gate", {1, h}, true, TensorInit::kNormal,
                          {{file + names_.shared_gate + ".weight", 1, SplitAxis::kNone}});
      MarkExpert(0);
    }
    s.shared_down = Add(ours + "shared_down", {h, spec.shared_ffn}, true, TensorInit::kResidual,
                        {{shared + ".down_proj.weight", h, SplitAxis::kColumns}});
    MarkExpert(0);
    s.shared_gate_up =
        Add(ours + "shared_gate_up", {2 * spec.shared_ffn, h}, true, TensorInit::kNormal,
            {{shared + ".gate_proj.weight", spec.shared_ffn, SplitAxis::kRows},
             {shared + ".up_proj.weight", spec.shared_ffn, SplitAxis::kRows}});
    MarkExpert(0);
  }
  const auto of = [&](int64_t e, const char* name) {
    return experts + "." + std::to_string(e) + "." + name + ".weight";
  };
  // Down projections of one width are one tensor, which a fused file has as it is.
  std::vector<Part> downs, gates_and_ups;
  int64_t rows = 0;
  for (int64_t e = spec.first_here; e < spec.first_here + here; ++e) {
    const int64_t width = spec.widths[static_cast<size_t>(e)];
    const Part down{of(e, names_.expert_down), h, SplitAxis::kColumns};
    if (spec.equal()) {
      downs.push_back(down);
    } else {
      s.experts_down.push_back(Add(ours + "experts." + std::to_string(e) + ".down", {h, width},
                                   true, TensorInit::kResidual, {down}));
      MarkExpert(0);
    }
    gates_and_ups.push_back({of(e, names_.expert_gate), width, SplitAxis::kRows});
    gates_and_ups.push_back({of(e, names_.expert_up), width, SplitAxis::kRows});
    rows += 2 * width;
  }
  if (spec.equal()) {
    const int64_t width = spec.widths[0];
    const int64_t first = Add(ours + "experts_down", {here * h, width}, true, TensorInit::kResidual,
                              downs, fused ? experts + ".down_proj" : "");
    MarkExpert(fused ? here : 0, by_input);
    MarkParameter(l, ".down_proj");
    for (int64_t e = 0; e < here; ++e) s.experts_down.push_back(first + e * h * width);
  }
  s.experts_gate_up = Add(ours + "experts_gate_up", {rows, h}, true, TensorInit::kNormal,
                          gates_and_ups, fused ? experts + ".gate_up_proj" : "");
  MarkExpert(fused ? here : 0, by_input, by_input);
  if (spec.equal()) MarkParameter(l, ".gate_up_proj");
  if (spec.biased) AddExpertBiases(l);
  idle_ += 3 * h * (rows / 2) * (count - spec.per_token) / count;
  if (spec.bias) {
    const int64_t parts = kExactParts * count;
    s.router_bias = Add(ours + "router_bias", {parts}, false, TensorInit::kZeros,
                        {{file + names_.router_bias, parts, SplitAxis::kNone}});
    MarkExact();
  }
  s.router = Add(ours + "router", {count, h}, true, TensorInit::kNormal,
                 {{file + names_.router + ".weight", count, SplitAxis::kNone}});
  MarkExpert(0);
}

// transformers holds the experts of a layer under one name, however a family's files do. Matrices
// by input have gate and up in turns there, which an adapter here does not follow.
void TensorTable::MarkParameter(int64_t l, const char* name) {
  if (names_.experts_by_input) return;
  AddParameterName("model.layers." + std::to_string(l) + ".mlp.experts" + name,
                   plan_.layers[static_cast<size_t>(l)].experts.here());
}

// Of families whose files hold the experts of a layer in one tensor.
void TensorTable::AddExpertBiases(int64_t l) {
  const ExpertsSpec& spec = plan_.layers[static_cast<size_t>(l)].experts;
  LayerSlices& s = layers_[static_cast<size_t>(l)];
  PLUMB_CHECK(spec.equal(), "experts of one width");
  const int64_t h = shape_.hidden, count = spec.count(), here = spec.here(), width = spec.widths[0];
  const std::string ours = "layers." + std::to_string(l) + ".",
                    file = "model.layers." + std::to_string(l) + ".",
                    experts = file + names_.experts;
  const auto whole = [&](const char* name, const char* in_file, int64_t n, bool in_turns) {
    const int64_t at = Add(ours + name, {here * n}, false, TensorInit::kZeros,
                           {{experts + in_file, here * n, SplitAxis::kNone}});
    MarkExpert(here, false, in_turns);
    return at;
  };
  s.experts_down_bias = whole("experts_down_bias", ".down_proj_bias", h, false);
  s.experts_gate_up_bias =
      whole("experts_gate_up_bias", ".gate_up_proj_bias", 2 * width, names_.experts_by_input);
  idle_ += (2 * width + h) * (count - spec.per_token);
  s.router_logit_bias = Add(ours + "router_logit_bias", {count}, false, TensorInit::kZeros,
                            {{file + names_.router + ".bias", count, SplitAxis::kNone}});
}

std::vector<ElementRange> RankShare(const TensorEntry& entry, int rank, int ranks) {
  PLUMB_CHECK(rank >= 0 && rank < ranks);
  std::vector<ElementRange> out;
  const int64_t columns = entry.columns();
  for (const TensorPart& part : entry.parts) {
    const int64_t rows = part.row_end - part.row_begin,
                  begin = entry.offset + part.row_begin * columns;
    const int64_t cut = part.split == SplitAxis::kRows      ? rows
                        : part.split == SplitAxis::kColumns ? columns
                                                            : ranks;
    if (cut % ranks != 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  entry.name + " (" + part.file_tensor + ") has " + std::to_string(cut) +
                      (part.split == SplitAxis::kRows ? " rows" : " columns") +
                      ", which cannot be shared among " + std::to_string(ranks) + " ranks");
    }
    const int64_t share = cut / ranks;
    switch (part.split) {
      case SplitAxis::kNone: out.push_back({begin, begin + rows * columns}); break;
      case SplitAxis::kRows:
        out.push_back({begin + rank * share * columns, begin + (rank + 1) * share * columns});
        break;
      case SplitAxis::kColumns:
        for (int64_t r = 0; r < rows; ++r) {
          out.push_back(
              {begin + r * columns + rank * share, begin + r * columns + (rank + 1) * share});
        }
        break;
    }
  }
  return out;
}

}  // namespace plumb::policy_model
