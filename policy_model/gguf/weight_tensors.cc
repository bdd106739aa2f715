#include "policy_model/gguf/weight_tensors.h"

#include <cstring>

#include "common/base/error.h"
#include "policy_model/families/tensor_table.h"

namespace plumb::policy_model {
namespace {

// The name in a GGUF file of a tensor of a model folder; empty: it has none.
std::string GgufName(const LayerNames& names, const std::string& file_tensor) {
  if (file_tensor == "model.embed_tokens.weight") return "token_embd.weight";
  if (file_tensor == "model.norm.weight") return "output_norm.weight";
  if (file_tensor == "lm_head.weight") return "output.weight";
  const std::string layers = "model.layers.";
  if (!file_tensor.starts_with(layers)) return "";
  const size_t number = layers.size(), dot = file_tensor.find('.', number),
               suffix = file_tensor.rfind('.');
  if (dot == std::string::npos || suffix <= dot) return "";
  const std::string part = file_tensor.substr(dot + 1, suffix - dot - 1);
  const struct {
    const char *ours, *theirs;
  } parts[] = {{names.attention_norm, "attn_norm"},
               {"self_attn.q_proj", "attn_q"},
               {"self_attn.k_proj", "attn_k"},
               {"self_attn.v_proj", "attn_v"},
               {names.qkv, "attn_qkv"},
               {"self_attn.q_norm", "attn_q_norm"},
               {"self_attn.k_norm", "attn_k_norm"},
               {"self_attn.o_proj", "attn_output"},
               {names.attention_behind, "post_attention_norm"},
               {names.ffn_norm, "ffn_norm"},
               {"mlp.gate_proj", "ffn_gate"},
               {"mlp.up_proj", "ffn_up"},
               {names.gate_up, "ffn_up"},
               {"mlp.down_proj", "ffn_down"},
               {names.ffn_behind, "post_ffw_norm"}};
  for (const auto& known : parts) {
    if (known.ours && part == known.ours)
      return "blk." + file_tensor.substr(number, dot - number) + "." + known.theirs +
             file_tensor.substr(suffix);
  }
  return "";
}

// Of the file, at a time.
constexpr size_t kHeldBytes = size_t{8} << 20;

struct Source {
  const GgufTensor* tensor;
  int64_t heads;  // of a tensor whose rows are interleaved, 0 for the others
  float offset;   // that the file's values have and the folder's have not
};

// The file's row r lies where in the folder: the file interleaves the two halves of a head that
// turn together, its row (j, half) is (half, j).
int64_t RowOf(int64_t r, int64_t rows, int64_t heads) {
  if (heads == 0) return r;
  const int64_t dim = rows / heads, within = r % dim;
  return r - within + within % 2 * (dim / 2) + within / 2;
}

void Fill(const GgufReader& in, const Source& source, DType dtype, std::span<std::byte> out) {
  const GgufTensor& t = *source.tensor;
  // A vector that is interleaved is a column: its elements are its rows.
  const bool column = t.shape.size() == 1 && source.heads > 0;
  const int64_t rows = t.shape.size() == 1 && !column ? 1 : t.shape[0];
  const int64_t columns = column ? 1 : t.shape.back();
  std::vector<float> row(static_cast<size_t>(column ? rows : columns));
  const auto put = [&](size_t at, float value) {
    if (dtype == DType::kFloat32) {
      std::memcpy(out.data() + at * 4, &value, 4);
    } else {
      const BFloat16 rounded = ToBFloat16(value);
      std::memcpy(out.data() + at * 2, &rounded, 2);
    }
  };
  if (column) {
    Dequantize(t.type, t.bytes, row);
    for (int64_t r = 0; r < rows; ++r)
      put(static_cast<size_t>(RowOf(r, rows, source.heads)), row[static_cast<size_t>(r)]);
  } else {
    const auto row_bytes = static_cast<size_t>(static_cast<int64_t>(t.bytes.size()) / rows);
    size_t held = 0;  // what lies before was given back
    for (int64_t r = 0; r < rows; ++r) {
      const size_t begin = static_cast<size_t>(r) * row_bytes;
      if (begin - held >= kHeldBytes) {
        in.Release(t.bytes.subspan(held, begin - held));
        held = begin;
      }
      Dequantize(t.type, t.bytes.subspan(begin, row_bytes), row);
      const auto at = static_cast<size_t>(RowOf(r, rows, source.heads) * columns);
      for (size_t i = 0; i < row.size(); ++i)
        put(at + i, source.offset == 0 ? row[i] : row[i] - source.offset);
    }
  }
  in.Release(t.bytes);
}

}  // namespace

std::vector<TensorToWrite> WeightTensors(const GgufReader& in, const ModelShape& shape,
                                         const GgufArchitecture& arch, DType dtype) {
  const TensorTable table(shape);
  const LayerNames& names = FamilyOf(shape).names;
  std::vector<TensorToWrite> out;
  size_t used = 0;
  for (const auto& [name, tensor] : in.tensors()) used += IsRotaryTensor(name) ? 1 : 0;
  for (const TensorEntry& entry : table.entries()) {
    for (const TensorPart& part : entry.parts) {
      if (part.file_row > 0) continue;  // in one tensor with the part before
      const std::string name = GgufName(names, part.file_tensor);
      if (name.empty()) {
        throw Error(ErrorCode::kUnsupported,
                    part.file_tensor + " has no name in a GGUF file that is known here", in.path());
      }
      const auto found = in.tensors().find(name);
      if (found == in.tensors().end())
        throw Error(ErrorCode::kCorruption, "has no tensor " + name, in.path());
      std::vector<int64_t> dims = entry.shape;
      dims[0] = part.file_rows;
      if (found->second.shape != dims) {
        throw Error(ErrorCode::kCorruption,
                    "tensor " + name + " has another shape than the keys say", in.path());
      }
      ++used;
      Source source{&found->second, 0, 0};
      if (arch.interleaved && name.find(".attn_q.") != std::string::npos)
        source.heads = shape.heads;
      if (arch.interleaved && name.find(".attn_k.") != std::string::npos)
        source.heads = shape.kv_heads;
      if (name.ends_with("norm.weight"))
        source.offset = static_cast<float>(table.plan().norm_offset);
      out.push_back(
          {part.file_tensor, dtype, std::move(dims),
           [&in, source, dtype](std::span<std::byte> to) { Fill(in, source, dtype, to); }});
    }
  }
  if (used != in.tensors().size()) {
    throw Error(ErrorCode::kUnsupported,
                "has " + std::to_string(in.tensors().size() - used) + " tensors that a model of " +
                    shape.family + " does not have",
                in.path());
  }
  return out;
}

}  // namespace plumb::policy_model
