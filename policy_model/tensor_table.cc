#include "policy_model/tensor_table.h"

#include "common/error.h"

namespace plumb::policy_model {
namespace {

constexpr int64_t kTensorAlign = 64;
constexpr int64_t kBucketElements = 4096 / 4 * 64;  // 4 KiB x 64 in float

int64_t RoundUp(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

TensorTable::TensorTable(const ModelShape& shape) : shape_(shape) {
  Validate(shape, "model");
  int64_t offset = 0;
  int bucket = 0;
  const auto add = [&](std::string name, std::vector<int64_t> dims, int tensor_axis, bool decay,
                       std::vector<HfPart> parts) {
    TensorEntry e;
    e.name = std::move(name);
    e.elements = 1;
    for (int64_t d : dims) e.elements *= d;
    e.shape = std::move(dims);
    e.tensor_axis = tensor_axis;
    e.decay = decay;
    e.bucket = bucket;
    e.offset = offset;
    e.parts = std::move(parts);
    offset = RoundUp(offset + e.elements, kTensorAlign);
    parameters_ += e.elements;
    entries_.push_back(std::move(e));
    return entries_.back().offset;
  };
  const auto whole = [](std::string name, int64_t rows) { return std::vector<HfPart>{{std::move(name), 0, rows}}; };
  const auto end_bucket = [&] {
    offset = RoundUp(offset, kBucketElements);
    ++bucket;
  };
  const int64_t h = shape.hidden, q = shape.heads * shape.head_dim, kv = shape.kv_width();

  // The backward meets the head first, then the layers from the last to the first, then the embedding.
  final_norm_ = add("final_norm", {h}, -1, false, whole("model.norm.weight", h));
  if (shape.scalar_head) score_ = add("score", {1, h}, -1, true, whole("score.weight", 1));
  else if (!shape.tied) lm_head_ = add("lm_head", {shape.vocab, h}, 0, true, whole("lm_head.weight", shape.vocab));
  end_bucket();
  layers_.resize(static_cast<size_t>(shape.layers));
  for (int64_t l = shape.layers - 1; l >= 0; --l) {
    const std::string ours = "layers." + std::to_string(l) + ".";
    const std::string hf = "model.layers." + std::to_string(l) + ".";
    LayerSlices& s = layers_[static_cast<size_t>(l)];
    s.down = add(ours + "down", {h, shape.ffn}, 1, true, whole(hf + "mlp.down_proj.weight", h));
    s.gate_up = add(ours + "gate_up", {2 * shape.ffn, h}, 0, true,
                    {{hf + "mlp.gate_proj.weight", 0, shape.ffn}, {hf + "mlp.up_proj.weight", shape.ffn, 2 * shape.ffn}});
    s.post_norm = add(ours + "post_norm", {h}, -1, false, whole(hf + "post_attention_layernorm.weight", h));
    s.o = add(ours + "o", {h, q}, 1, true, whole(hf + "self_attn.o_proj.weight", h));
    s.qkv = add(ours + "qkv", {q + 2 * kv, h}, 0, true,
                {{hf + "self_attn.q_proj.weight", 0, q}, {hf + "self_attn.k_proj.weight", q, q + kv},
                 {hf + "self_attn.v_proj.weight", q + kv, q + 2 * kv}});
    s.qkv_bias = -1;
    if (shape.attention_bias) {
      s.qkv_bias = add(ours + "qkv_bias", {q + 2 * kv}, 0, false,
                       {{hf + "self_attn.q_proj.bias", 0, q}, {hf + "self_attn.k_proj.bias", q, q + kv},
                        {hf + "self_attn.v_proj.bias", q + kv, q + 2 * kv}});
    }
    s.input_norm = add(ours + "input_norm", {h}, -1, false, whole(hf + "input_layernorm.weight", h));
    end_bucket();
  }
  embedding_ = add("embedding", {shape.vocab, h}, 0, true, whole("model.embed_tokens.weight", shape.vocab));
  end_bucket();
  if (shape.tied && !shape.scalar_head) lm_head_ = embedding_;
  flat_elements_ = offset;
}

}  // namespace plumb::policy_model
