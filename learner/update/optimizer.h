// AdamW over the flat buffers of the sets that are trained, with the guard that keeps non-finite
// numbers out of the weights; optimizer.name = "muon": of the matrices inside the layers Muon
// (learner/update/muon.h), whose momentum is kept as their m, while their v stays 0.
//
//   set.flat        T[N]        what forward and backward read
//   master          float[M]    is set.flat itself when T is float
//   m, v, grad      float[M]; grad of a base bfloat16[M] under optimizer.gradients = "bfloat16"
// A set that is not trained has none of them; of one that is, M are the elements that are not
// frozen, without gaps (SetState::runs), and M = N where nothing is. optimizer.moments = "int8"
// keeps m and v in 8 bits (kernels/update/adamw_compact.h, learner/update/compact_moments.h),
// optimizer.masters = "none" no master; both round at random, by the seed, and go with whole sets
// at one rate only. optimizer.offload: masters and moments lie in the host's memory beside a GPU,
// and an update goes through them in pieces (learner/update/offload/state_stream.h).
// Thread safety: one thread. Ownership: owns master, m, v and grad; the weights are the caller's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "configs/config.h"
#include "kernels/update/adamw.h"
#include "learner/ranks/partition.h"
#include "learner/ranks/ranks.h"
#include "learner/update/compact_moments.h"
#include "learner/update/guard/loss_scale.h"
#include "policy_model/memory/pass_parts.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

struct UpdateResult {
  bool applied = false;
  // Before it is clipped itself, behind optimizer.clip_value; may be non-finite when not applied.
  double grad_norm = 0;
  std::string why_skipped;  // empty when applied
};

// Which parameters are trained, how fast, and what adapters drop by. Patterns are looked for in the
// parameters' names in files ("model.layers.0.self_attn.q_proj.weight", "...q_proj.lora_B.weight"):
// common/text/name_pattern.h.
struct TrainingRules {
  // Factors of the learning rate; the first pattern that matches counts.
  std::vector<std::pair<std::string, double>> learning_rates = {};
  std::vector<std::string> frozen = {};
  uint64_t seed = 0;
  bool scale_loss = false;  // products in float16: optimizer.loss_scale
};
TrainingRules TrainingRulesOf(const configs::Config& config);

class ModelShare;

// The ranks that train together, and what each of them keeps a part of.
struct Sharing {
  Ranks* ranks = nullptr;  // borrowed; nullptr: there is one
  // 0: each keeps everything; 1: a part of moments and masters, which it alone updates; 2: of a
  // base's gradients, too (part_keeper.h); 3: of its weights, too, from SpreadWeights on.
  int64_t zero = 0;
  Wire wire = Wire::kFloat32;  // as what gradients travel
  // Of a model that several ranks compute together: this one's, whose weights the optimizer has;
  // `ranks` have the same share then. Borrowed; nullptr: the model is whole.
  ModelShare* share = nullptr;
  // Experts are apart where ranks share them out, or where they are updated at some updates only
  // (optimizer_experts.cc).
  struct Experts {
    bool apart = false;
    Ranks* ranks = nullptr;  // borrowed: those that have the same ones; nullptr: this one alone
    int64_t sync_every = 1;  // updates from one sum of their gradients to the next
  };
  Experts experts = {};
  bool sharded() const { return ranks && zero > 0; }
  // What rounding on the wire lost is kept for the next step, by every rank its own.
  bool keeps_residuals() const { return ranks && wire != Wire::kFloat32; }
};
Sharing SharingOf(const configs::Config& config, Ranks* ranks, ModelShare* share = nullptr);

class FreshGradients;
class GradientRooms;
class PartKeeper;
class StateStream;

class Optimizer {
 public:
  // kInvalidArgument for 8 bits or no masters where ranks keep a part each, and for gradients in
  // bfloat16 of several ranks, of Muon, or where no base is trained. The same for rules with
  // a pattern that no trained parameter matches, or that parts what is one tensor here (q, k and v
  // of a layer), for rules that leave nothing to train, and for those that do not go with 8 bits or
  // no masters.
  // Of GPUs' ranks all construct it at once: they meet on their devices (rank_memory.h).
  Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options,
            const TrainingRules& rules = {}, const Sharing& sharing = {});
  ~Optimizer();

  // Of one trained set. Its memory is the optimizer's, the parameters the model's.
  struct SetState {
    std::shared_ptr<policy_model::ParameterSet> set;
    // Of what is trained (places 0 to trained()), bucket by bucket, who keeps what; and what is
    // kept here of masters and moments: all in one piece, or this rank's, a piece a bucket.
    Partition partition = {};
    std::vector<Piece> kept = {};
    // Where experts are apart: whether a bucket is theirs. Each has a piece of its own then.
    std::vector<uint8_t> of_experts = {};
    bool grad_in_parts = false;  // grad has what is kept alone; else all places
    int64_t trained() const { return partition.elements(); }
    int64_t kept_elements() const { return kept.empty() ? 0 : kept.back().at + kept.back().size(); }
    // Empty where the set's type is float, and where there are to be none.
    policy_model::FlatBuffer own_master = {};
    // The weights of what is kept, while the set's flat buffer has no memory (PartKeeper); else
    // empty.
    policy_model::FlatBuffer own_weights = {};
    policy_model::FlatBuffer grad = {}, decay_mask = {};
    policy_model::FlatBuffer m = {}, v = {};  // empty where they are kept in 8 bits:
    CompactMoments m8 = {}, v8 = {};          // else empty
    // Of a set that is compact(): kernels::CompactTensor of each tensor, and their blocks in all.
    policy_model::FlatBuffer compact_tensors = {};
    int64_t compact_blocks = 0;
    bool masters = false, in_8_bits = false;  // also where this rank's slice is empty
    // What of earlier gradients is still to be added, by place; empty: nothing ever is.
    policy_model::FlatBuffer residual = {};
    bool has_own_master() const { return masters; }
    // Every buffer that holds moments.
    std::vector<policy_model::FlatBuffer*> moments();
    // Master of its own or none at all, and moments, are what AdamwUpdate takes.
    bool compact() const {
      return in_8_bits || (!has_own_master() && set->flat.dtype() != DType::kFloat32);
    }
    // What of a run is in a piece that is kept here: elements of the set, their places, and where
    // what is kept for them begins.
    struct KeptRun {
      int64_t begin = 0, end = 0, place = 0, at = 0;
    };
    KeptRun KeptOf(const policy_model::TrainedRun& run, const Piece& piece) const;
    // Of grad, what of a piece this rank has the sums of.
    Slice OwnGradient(const Piece& piece) const {
      if (grad_in_parts) return {.begin = piece.at, .end = piece.at + piece.size()};
      return {.begin = piece.begin, .end = piece.end};
    }
    // The ends of what a pass goes through one after the other (BucketEnds), in places.
    std::vector<int64_t> BucketPlaces() const;
    int64_t PlacesBefore(int64_t element) const;
    // What of the set is trained, ascending, and at which factor of the learning rate.
    std::vector<policy_model::TrainedRun> runs = {};
    std::vector<double> rates = {};
    // Where masters and moments lie in the host's memory, what they go through in an update; all
    // sets share it.
    std::shared_ptr<StateStream> through = {};
    // Of a tensor of the set in master, grad, m and v; -1: it is frozen.
    int64_t PlaceOf(const policy_model::TensorEntry& entry) const {
      return policy_model::PlaceOf(runs, entry.offset);
    }
    // All of a set that is float, frozen elements, too; else of what is trained.
    policy_model::FlatBuffer& master() { return has_own_master() ? own_master : set->flat; }
    float* master(const KeptRun& run) {
      if (has_own_master()) return own_master.f32() + run.at;
      return own_weights.elements() > 0 ? own_weights.f32() + run.at : set->flat.f32() + run.begin;
    }
    void* weights(const KeptRun& run) {
      return own_weights.elements() > 0 ? own_weights.at(run.at) : set->flat.at(run.begin);
    }
    // Of grad's type.
    const void* gradient(const KeptRun& run) const {
      return grad.at(grad_in_parts ? run.at : run.place);
    }
  };
  std::span<SetState> sets() {
    Settle();
    return sets_;
  }

  // Where a backward of the model adds.
  const policy_model::Gradients& gradients() const { return gradients_; }
  void ZeroGrad();

  // Of several ranks the gradients are added up first, and what follows is the same on all of them.
  // Clip by value, norm, guard, clip by norm, update of weights in place. `loss` is checked too. A
  // skipped update leaves everything as it was and counts; max_skipped_in_a_row of them throw
  // Error(kNonFinite), and so does LossScale; one that only lowers that scale is none of them.
  // `weight_decay`: of a phase that has one of its own; else that of the options. `loss_scale`: of
  // gradients that passes of another optimizer's scale computed; else its own.
  UpdateResult Update(double learning_rate, double loss,
                      std::optional<double> weight_decay = std::nullopt,
                      std::optional<double> loss_scale = std::nullopt);

  Ranks* ranks() const { return sharing_.ranks; }
  // Masters and moments are spread over the ranks: what reads all of them is called by all ranks.
  bool sharded() const { return sharing_.sharded(); }
  // Something of a checkpoint is spread so.
  bool spread() const {
    return sharing_.sharded() || sharing_.keeps_residuals() || sharing_.share ||
           sharing_.experts.sync_every > 1;
  }
  ModelShare* share() const { return sharing_.share; }
  // Of passes with these weights (Transformer::SetParts); nullptr: they need none. Borrowed.
  policy_model::PassParts* parts() const;
  // run.zero = 3 or a share of a model, of all ranks: each keeps its part of the base's weights
  // from now on, and what reads all of them needs GatherWeights before. Does nothing where they are
  // not to be spread.
  void SpreadWeights();
  void GatherWeights();
  bool weights_spread() const;
  // The whole weights were loaded: those that are trained follow. Masters: AdoptWeights.
  void TakeLoaded();
  // Of shares of a model, of all ranks: those that have the same one hold the same weights, and all
  // hold the same of what is not cut. Throws RankLost naming those that do not.
  void CheckShare(const std::string& what) const;
  // Seconds that sums and gathers beside passes took since the last call, and that passes waited
  // for them; nullopt: there are none.
  struct BesideTimes {
    double busy = 0, waited = 0;
  };
  std::optional<BesideTimes> TakeBesideTimes();
  // Before a checkpoint, of all ranks: the owner of an element takes over what is left of it.
  void FoldResiduals();
  // Gradients of a tensor of experts are gathered over several updates, and a checkpoint made now
  // holds those of some (as residuals, read from SetState::grad). AdoptWaiting: they were loaded.
  bool Waits(const policy_model::TensorEntry& entry) const;
  void AdoptWaiting();
  // Elements from place `place` on of one of the set's buffers m, v, own_master and (folded)
  // residual or grad, whichever rank keeps them.
  void ReadKept(const SetState& state, const policy_model::FlatBuffer& buffer, int64_t place,
                std::span<std::byte> out) const;
  // The other way, from the same bytes on every rank: each takes what it keeps.
  void WriteKept(const SetState& state, policy_model::FlatBuffer& buffer, int64_t place,
                 std::span<const std::byte> bytes) const;
  int64_t updates() const { return updates_; }
  int64_t skipped() const { return skipped_; }
  // That gradients() of the next passes have; 1 where there is none.
  double loss_scale() const { return loss_scale_.scale(); }

  // Of a model with one trained set.
  policy_model::FlatBuffer& grad() { return sets().front().grad; }
  policy_model::FlatBuffer& m() { return sets_.front().m; }
  policy_model::FlatBuffer& v() { return sets_.front().v; }
  struct Counters {
    int64_t updates = 0, skipped = 0, skipped_in_a_row = 0;
    LossScale::State loss_scale = {};
    bool operator==(const Counters&) const = default;
  };
  Counters counters() const { return {updates_, skipped_, skipped_in_a_row_, loss_scale_.state()}; }
  void Restore(const Counters& counters);
  // Forgets the moments (a new phase starts).
  void ResetMoments();
  // Of the updates since the last call, the mean share of gradients that optimizer.clip_value
  // clipped; nullopt: it is off, or there was none.
  std::optional<double> TakeClippedShare();
  // "optim/..." of what came of the updates since the last call; `of` stands in front of their
  // names.
  void AddMetrics(const std::string& of, std::map<std::string, double>& metrics);
  // After weights changed from outside (loaded): takes them as the masters.
  void AdoptWeights();

 private:
  // Gradients that are still to be zeroed are (FreshGradients).
  void Settle();
  double SumOfSquares();
  void ClipValues(double loss_scale);
  // `overflow`: of gradients times a scale.
  UpdateResult Skip(UpdateResult result, bool overflow, bool loss_is_finite);
  void AddUpGradients();
  // What a rank keeps of the gradient of a tensor.
  std::vector<std::span<float>> KeptGradients(SetState& state,
                                              const policy_model::TensorEntry& entry) const;
  double Squares(const SetState& state, const void* gradients, int64_t n);
  void ShareUpdated(SetState& state);
  void Divide(SetState& state, int64_t n);
  void DivideExperts(SetState& state);
  // Who shares a bucket; nullptr: this rank alone.
  Ranks* RanksOf(const SetState& state, size_t bucket) const {
    return OfExperts(state, bucket) ? sharing_.experts.ranks : sharing_.ranks;
  }
  // Whether this update has the bucket, or piece, of a state whose experts are apart.
  bool Due(const SetState& state, size_t bucket) const {
    return !OfExperts(state, bucket) || experts_due();
  }
  bool OfExperts(const SetState& state, size_t bucket) const {
    return !state.of_experts.empty() && state.of_experts[bucket] != 0;
  }
  bool experts_due() const {
    return (moment_steps_ + 1) % std::max<int64_t>(1, sharing_.experts.sync_every) == 0;
  }
  // Gradients of experts that wait for the update that has them.
  bool experts_wait() const {
    return sharing_.experts.apart && moment_steps_ % sharing_.experts.sync_every != 0;
  }
  void AddUpApart(SetState& state);
  void ZeroExperts(SetState& state, bool experts);
  // Of a number that each rank has of what it keeps: over all ranks, each element once.
  double OverRanks(double of_rest, double of_experts);
  double WaitingSquares();
  // What a rank owns of a bucket, whether it keeps all of it or not.
  Slice OwnedBy(const SetState& state, size_t bucket, int rank) const;
  void FoldWaiting();
  void UpdateCompact(size_t set, const kernels::AdamwOptions& adamw);
  // Elements [run.begin, run.end) of the set.
  void UpdateRun(SetState& state, const SetState::KeptRun& run, const kernels::AdamwOptions& adamw);
  // The same where some of its tensors are Muon's; `muon_rate` over the rate of `adamw`.
  void UpdateWithMuon(SetState& state, const SetState::KeptRun& run,
                      const kernels::AdamwOptions& adamw, double muon_rate);
  void PrepareGradients();
  configs::OptimizerConfig options_;
  uint64_t seed_;
  const Sharing sharing_;
  std::vector<SetState> sets_;
  std::unique_ptr<PartKeeper> keeper_;     // of the base, from run.zero = 2 on
  std::unique_ptr<GradientRooms> rooms_;   // of the base, where its gradients are bfloat16
  std::unique_ptr<FreshGradients> fresh_;  // of the base, where they are float32 on one GPU
  BesideTimes taken_;
  policy_model::FlatBuffer no_gradients_;  // stands for a base's that passes find elsewhere
  // what gradients_ points to
  std::vector<policy_model::FlatBuffer*> adapter_grads_;
  std::vector<std::span<const policy_model::TrainedRun>> adapter_runs_;
  policy_model::Gradients gradients_;
  policy_model::FlatBuffer norm_scratch_;
  int64_t updates_ = 0, skipped_ = 0, skipped_in_a_row_ = 0, moment_steps_ = 0;
  LossScale loss_scale_;
  int64_t clip_updates_ = 0;   // since TakeClippedShare
  double clipped_shares_ = 0;  // their sum
  std::optional<std::string> left_out_;

 public:
  int64_t moment_steps() const { return moment_steps_; }
  void set_moment_steps(int64_t steps) { moment_steps_ = steps; }
  // The digest of moments that a checkpoint had left out, until there are new ones.
  const std::optional<std::string>& left_out() const { return left_out_; }
  void set_left_out(std::string digest) { left_out_ = std::move(digest); }
};

}  // namespace plumb::learner
