// Name, shape, parts and place of every weight: the one table that load, save, shard, checkpoint
// and publish walk.
//
// Thread safety: const after construction. The flat buffer is ordered by backward bucket (head and
// final norm first used in the backward, embedding last); each tensor starts at a multiple of 64
// elements, each bucket at kBucketElements.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "policy_model/families/family.h"

namespace plumb::policy_model {

// Along which axis a part is cut for tensor parallelism. The axis belongs to the part: a rank's
// share of a merged matrix is its share of q, of k and of v, not a run of rows of the whole.
enum class SplitAxis : uint8_t { kNone, kRows, kColumns };

// Rows of a merged tensor that are one thing (q of qkv), and where they lie in HF files.
struct TensorPart {
  std::string file_tensor;
  int64_t row_begin = 0, row_end = 0;  // of our tensor
  int64_t file_row = 0;                // where they begin in the file's tensor
  int64_t file_rows = 0;               // of the file's tensor
  // of several matrices one behind the other, which the file counts along an axis of its own; 0: no
  int64_t file_stack = 0;
  // The file's matrices lie column by column; rows of their first and second halves take turns.
  bool by_columns = false, in_turns = false;
  SplitAxis split = SplitAxis::kNone;
};

enum class TensorInit : uint8_t {
  kNormal,    // Normal(0, std)
  kResidual,  // Normal(0, std / sqrt(2 L)): what writes into the residual stream
  kOnes,
  kZeros,
  kUniform,  // within +-1 / sqrt(columns), as low-rank adapters begin
};

struct TensorEntry {
  std::string name;            // ours: "layers.3.qkv"
  std::vector<int64_t> shape;  // [rows, cols] or [n]
  bool adapts = true;          // a linear part may have an adapter
  bool decay = true;           // weight decay applies (matrices; not norms and biases)
  // A vector of float32 in the files whatever the model's type, here in three parts
  // (experts/exact_floats.h); has one TensorPart.
  bool exact = false;
  // Matrices of experts, one behind the other, that other systems hold as one parameter: its path
  // there, on which an adapter of all experts may stand, and how many they are; 0: it is none.
  std::string parameter;
  int64_t experts = 0;
  TensorInit init = TensorInit::kNormal;
  int64_t offset = 0;  // elements from the start of the flat buffer
  int64_t elements = 0;
  std::vector<TensorPart> parts;  // q, k, v of qkv; gate, up of gate_up; else one part

  int64_t columns() const { return elements / shape[0]; }
};

// Offsets of one layer's tensors in elements; -1 where the layer has none.
struct LayerSlices {
  int64_t attention_norm = -1, attention_norm_bias = -1, qkv = -1, qkv_bias = -1, q_norm = -1,
          k_norm = -1, o = -1, o_bias = -1, attention_behind = -1, sinks = -1, token_gate = -1;
  // Of latent attention: queries in one product or two, latent and shared key, what the latent
  // becomes.
  int64_t q = -1, q_down = -1, q_down_norm = -1, kv_down = -1, kv_down_norm = -1, kv_up = -1;
  int64_t ffn_norm = -1, ffn_norm_bias = -1, gate_up = -1, gate_up_bias = -1, down = -1,
          down_bias = -1, ffn_behind = -1;
  // Of experts: gate and up of all one behind the other, down of each.
  int64_t router = -1, router_bias = -1, experts_gate_up = -1;
  std::vector<int64_t> experts_down;  // [experts]
  int64_t router_logit_bias = -1, experts_gate_up_bias = -1, experts_down_bias = -1;
  int64_t shared_gate_up = -1, shared_down = -1, shared_gate = -1;
  // Of a gated delta net: what comes of a token, the taps, decay rates and biases, norm, output.
  int64_t delta_in = -1, delta_conv = -1, delta_a_log = -1, delta_bias = -1, delta_norm = -1,
          delta_out = -1;
  int64_t conv_in = -1, conv_taps = -1, conv_out = -1;  // of a gated short convolution
};

// The tensors of one parameter set and where they lie in its flat buffer.
class TensorList {
 public:
  const std::vector<TensorEntry>& entries() const { return entries_; }
  int64_t flat_elements() const { return flat_elements_; }  // padded
  int64_t parameters() const { return parameters_; }        // without padding

 protected:
  struct Part {
    std::string file;
    int64_t rows;
    SplitAxis split;
  };
  int64_t Add(std::string name, std::vector<int64_t> dims, bool decay, TensorInit init,
              const std::vector<Part>& parts, const std::string& fused = "");
  // What Add gave last: no adapter goes with it; the file counts its `stack` matrices.
  void AddParameterName(std::string name, int64_t experts);  // of the last entry
  void MarkExpert(int64_t stack, bool by_columns = false, bool in_turns = false);
  // It is exact: of three elements one is a parameter.
  void MarkExact();
  void EndBucket();

 private:
  std::vector<TensorEntry> entries_;
  int64_t flat_elements_ = 0, parameters_ = 0;
};

// Those of a model's base.
class TensorTable : public TensorList {
 public:
  explicit TensorTable(const ModelShape& shape);

  // What a token goes through: of experts the mean of as many as it has.
  int64_t active_parameters() const { return parameters() - idle_; }
  const LayerSlices& layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  int64_t embedding() const { return embedding_; }
  int64_t final_norm() const { return final_norm_; }
  int64_t final_norm_bias() const { return final_norm_bias_; }  // -1: has none
  int64_t lm_head() const { return lm_head_; }  // embedding() when tied; -1 with a scalar head
  int64_t score() const { return score_; }      // [1, H]; -1 without a scalar head
  const ModelShape& shape() const { return shape_; }
  const ModelPlan& plan() const { return plan_; }

 private:
  void AddLayer(int64_t layer);
  void AddLatent(int64_t layer);
  void AddDense(int64_t layer);
  void AddExperts(int64_t layer);
  void AddAttention(int64_t layer);
  void AddDelta(int64_t layer);  // hybrid/state_tensors.cc
  void AddConv(int64_t layer);
  void MarkParameter(int64_t layer, const char* name);
  void AddExpertBiases(int64_t layer);

  ModelShape shape_;
  ModelPlan plan_;
  LayerNames names_;
  std::vector<LayerSlices> layers_;
  int64_t idle_ = 0;  // parameters of experts that a token does not go to
  int64_t embedding_ = 0, final_norm_ = 0, final_norm_bias_ = -1, lm_head_ = -1, score_ = -1;
};

// The element ranges of the flat buffer that rank `rank` of `ranks` holds of an entry under tensor
// parallelism, part by part and row by row where columns are cut; an entry that is not cut is whole
// on every rank. Throws kInvalidArgument when a part cannot be cut into equal shares.
struct ElementRange {
  int64_t begin = 0, end = 0;
};
std::vector<ElementRange> RankShare(const TensorEntry& entry, int rank, int ranks);

}  // namespace plumb::policy_model
