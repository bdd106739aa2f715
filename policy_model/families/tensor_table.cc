#include "policy_model/families/tensor_table.h"

#include "common/base/error.h"

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
  final_norm_ = Add("final_norm", {h}, false, norm, {{"model.norm.weight", h, SplitAxis::kNone}});
  if (plan_.final_norm == NormKind::kLayer) {
    final_norm_bias_ = Add("final_norm_bias", {h}, false, TensorInit::kZeros,
                           {{"model.norm.bias", h, SplitAxis::kNone}});
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
  const int64_t h = shape_.hidden, q = shape_.heads * shape_.head_dim, kv = shape_.kv_width(),
                d = shape_.head_dim;
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
  if (spec.ffn_bias) {
    s.down_bias = Add(ours + "down_bias", {h}, false, TensorInit::kZeros,
                      {{file + "mlp.down_proj.bias", h, SplitAxis::kNone}});
  }
  s.down = Add(ours + "down", {h, spec.ffn}, true, TensorInit::kResidual,
               {{file + "mlp.down_proj.weight", h, SplitAxis::kColumns}});
  if (spec.ffn_bias) {
    s.gate_up_bias = Add(ours + "gate_up_bias", {2 * spec.ffn}, false, TensorInit::kZeros,
                         {{file + "mlp.gate_proj.bias", spec.ffn, SplitAxis::kRows},
                          {file + "mlp.up_proj.bias", spec.ffn, SplitAxis::kRows}},
                         named(names_.gate_up, ".bias"));
  }
  s.gate_up = Add(ours + "gate_up", {2 * spec.ffn, h}, true, TensorInit::kNormal,
                  {{file + "mlp.gate_proj.weight", spec.ffn, SplitAxis::kRows},
                   {file + "mlp.up_proj.weight", spec.ffn, SplitAxis::kRows}},
                  named(names_.gate_up, ".weight"));
  if (spec.norm_before) s.ffn_norm = norm("post_norm", names_.ffn_norm, h);
  if (biased) s.ffn_norm_bias = norm_bias("post_norm_bias", names_.ffn_norm);
  if (spec.norm_behind) s.attention_behind = norm("attention_behind", names_.attention_behind, h);
  if (spec.o_bias) {
    s.o_bias = Add(ours + "o_bias", {h}, false, TensorInit::kZeros,
                   {{file + "self_attn.o_proj.bias", h, SplitAxis::kNone}});
  }
  s.o = Add(ours + "o", {h, q}, true, TensorInit::kResidual,
            {{file + "self_attn.o_proj.weight", h, SplitAxis::kColumns}});
  s.qkv = Add(ours + "qkv", {q + 2 * kv, h}, true, TensorInit::kNormal,
              {{file + "self_attn.q_proj.weight", q, SplitAxis::kRows},
               {file + "self_attn.k_proj.weight", kv, SplitAxis::kRows},
               {file + "self_attn.v_proj.weight", kv, SplitAxis::kRows}},
              named(names_.qkv, ".weight"));
  if (spec.qkv_bias) {
    s.qkv_bias = Add(ours + "qkv_bias", {q + 2 * kv}, false, TensorInit::kZeros,
                     {{file + "self_attn.q_proj.bias", q, SplitAxis::kRows},
                      {file + "self_attn.k_proj.bias", kv, SplitAxis::kRows},
                      {file + "self_attn.v_proj.bias", kv, SplitAxis::kRows}},
                     named(names_.qkv, ".bias"));
  }
  if (spec.qk_norm != QkNorm::kNone) {
    const bool whole = spec.qk_norm == QkNorm::kFullWidth;
    s.q_norm = norm("q_norm", "self_attn.q_norm", whole ? q : d);
    s.k_norm = norm("k_norm", "self_attn.k_norm", whole ? kv : d);
  }
  if (spec.norm_before) s.attention_norm = norm("input_norm", names_.attention_norm, h);
  if (biased) s.attention_norm_bias = norm_bias("input_norm_bias", names_.attention_norm);
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
