#include "learner/update/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/rng.h"
#include "common/text/name_pattern.h"
#include "configs/pattern_number.h"
#include "kernels/update/adamw.h"
#include "kernels/update/clip_value.h"
#include "learner/update/gradients/fresh_gradients.h"
#include "learner/update/gradients/gradient_rooms.h"
#include "learner/update/muon.h"
#include "learner/update/offload/offloaded_update.h"
#include "learner/update/part_keeper.h"
#include "learner/update/rank_memory.h"
#include "learner/update/shares/model_share.h"

namespace plumb::learner {

using policy_model::FlatBuffer;

namespace {

using policy_model::ParameterSet;
using policy_model::TensorEntry;
using policy_model::TrainedRun;

constexpr uint64_t kDropoutStream = 0xd40b;

// A parameter's name without what PEFT puts before it.
std::string NameOf(const policy_model::TensorPart& part) {
  constexpr std::string_view kPrefix = policy_model::kPeftPrefix;
  return part.file_tensor.starts_with(kPrefix) ? part.file_tensor.substr(kPrefix.size())
                                               : part.file_tensor;
}

// Patterns of one option over the tensors of sets, and which of them matched something.
class Patterns {
 public:
  explicit Patterns(const char* option) : option_(option) {}
  void Add(const std::string& pattern) {
    patterns_.emplace_back(pattern, NamePattern::Where::kAnywhere, option_);
    used_.push_back(false);
  }
  // The first pattern that matches the tensor, -1: none.
  int64_t Find(const TensorEntry& entry) {
    int64_t found = -1;
    for (size_t k = 0; k < entry.parts.size(); ++k) {
      example_ = NameOf(entry.parts[k]);
      int64_t of_part = -1;
      for (size_t i = patterns_.size(); i-- > 0;) {
        if (!patterns_[i].Matches(example_)) continue;
        used_[i] = true;
        of_part = static_cast<int64_t>(i);
      }
      if (k > 0 && of_part != found)
        Apart(entry, patterns_[static_cast<size_t>(std::max(found, of_part))].text());
      found = of_part;
    }
    return found;
  }
  void CheckUsed() const {
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (used_[i]) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "'" + patterns_[i].text() +
                      "' matches no parameter that is trained; one of them is " + example_,
                  option_);
    }
  }

 private:
  [[noreturn]] void Apart(const TensorEntry& entry, const std::string& pattern) const {
    std::string names;
    for (const auto& part : entry.parts) names += (names.empty() ? "" : ", ") + NameOf(part);
    throw Error(ErrorCode::kInvalidArgument,
                "'" + pattern + "' matches some of " + names +
                    ", which are one matrix here: name all of them or none",
                option_);
  }
  const char* option_;
  std::vector<NamePattern> patterns_;
  std::vector<bool> used_;
  std::string example_ = "none";
};

// The runs of a set and their factors. Tensors of one factor that follow each other are one run, so
// that without rules all of a set is.
class Rules {
 public:
  explicit Rules(const TrainingRules& rules) : rules_(rules) {
    for (const std::string& pattern : rules.frozen) frozen_.Add(pattern);
    for (const auto& [pattern, factor] : rules.learning_rates) rates_.Add(pattern);
  }
  void Apply(const ParameterSet& set, std::vector<TrainedRun>& runs, std::vector<double>& rates) {
    const auto& entries = set.table->entries();
    int64_t at = 0;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (frozen_.Find(entries[i]) >= 0) continue;
      const int64_t pattern = rates_.Find(entries[i]);
      const double rate =
          pattern < 0 ? 1 : rules_.learning_rates[static_cast<size_t>(pattern)].second;
      const int64_t begin = i == 0 ? 0 : entries[i].offset,
                    end = i + 1 < entries.size() ? entries[i + 1].offset : set.flat.elements();
      if (!runs.empty() && runs.back().end == begin && rates.back() == rate) {
        runs.back().end = end;
      } else {
        runs.push_back({.begin = begin, .end = end, .at = at});
        rates.push_back(rate);
      }
      at += end - begin;
    }
  }
  void CheckUsed() const {
    frozen_.CheckUsed();
    rates_.CheckUsed();
  }

 private:
  const TrainingRules& rules_;
  Patterns frozen_{"policy.frozen"}, rates_{"policy.learning_rates"};
};

void CheckGradients(const configs::OptimizerConfig& options, const policy_model::Weights& weights,
                    bool ranks) {
  if (options.gradients == configs::Gradients::kFloat32) return;
  const auto refuse = [](const std::string& why) {
    throw Error(ErrorCode::kInvalidArgument, "is \"bfloat16\", and " + why, "optimizer.gradients");
  };
  if (ranks) refuse("ranks add gradients up as float32: leave it at \"float32\"");
  if (options.name == configs::OptimizerName::kMuon)
    refuse("optimizer.name = \"muon\" reads them as float32: leave it at \"float32\"");
  if (!weights.base().trained)
    refuse("an adapter is trained, whose gradients are few: leave it at \"float32\"");
}

}  // namespace

TrainingRules TrainingRulesOf(const configs::Config& config) {
  return {.learning_rates =
              configs::ReadPatternNumbers(config.policy.learning_rates, "policy.learning_rates"),
          .frozen = config.policy.frozen,
          .seed = config.run.seed,
          .scale_loss = config.model.products == configs::Products::kFp16};
}

namespace {

// What is kept or computed tensor by tensor, and not of a part of one.
void CheckOfShare(const configs::OptimizerConfig& options, const std::string& factor) {
  const auto refuse = [&](const std::string& option) {
    throw Error(ErrorCode::kUnsupported,
                "asks for " + factor + ", and " + option +
                    " is about whole tensors: leave it out, or share the work as dp",
                "run.parallel");
  };
  if (options.name == configs::OptimizerName::kMuon) refuse("optimizer.name = \"muon\"");
  if (options.moments == configs::Moments::kInt8) refuse("optimizer.moments = \"int8\"");
  if (options.masters == configs::Masters::kNone) refuse("optimizer.masters = \"none\"");
  if (options.gradients == configs::Gradients::kBFloat16)
    refuse("optimizer.gradients = \"bfloat16\"");
}

}  // namespace

Sharing SharingOf(const configs::Config& config, Ranks* ranks, ModelShare* share) {
  Wire wire = Wire::kFloat32;
  switch (config.run.gradient_wire) {
    case configs::GradientWire::kFloat32: break;
    case configs::GradientWire::kBFloat16: wire = Wire::kBFloat16; break;
    case configs::GradientWire::kInt8: wire = Wire::kInt8; break;
  }
  return {.ranks = ranks, .zero = config.run.zero, .wire = wire, .share = share};
}

Optimizer::Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options,
                     const TrainingRules& rules, const Sharing& sharing)
    : options_(options), seed_(rules.seed), sharing_(sharing) {
  const Stream& stream = weights.stream();
  if (sharing.ranks && !sharing.ranks->device()) MeetOnDevice(*sharing.ranks, stream);
  const bool compact = options.moments == configs::Moments::kInt8;
  if (options.name == configs::OptimizerName::kMuon && sharing.sharded()) {
    throw Error(ErrorCode::kInvalidArgument,
                "optimizer.name = \"muon\" updates whole matrices: set it to 0", "run.zero");
  }
  const bool narrow = options.gradients == configs::Gradients::kBFloat16;
  CheckGradients(options, weights, sharing.ranks != nullptr);
  CheckOffload(options);
  if (sharing.share) CheckOfShare(options, sharing.share->factor());
  Rules to_apply(rules);
  bool any = false;
  for (const auto& set : weights.sets()) {
    if (!set->trained) continue;
    any = true;
    SetState state{.set = set};
    to_apply.Apply(*set, state.runs, state.rates);
    if (state.runs.empty()) continue;
    const TrainedRun& last = state.runs.back();
    const int64_t n = last.at + last.end - last.begin;
    // One byte a block of kDecayBlock elements; carried in a buffer of whole int64 so that it can
    // live on any device.
    const int64_t blocks = (n + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
    state.decay_mask = FlatBuffer(stream, DType::kInt64, (blocks + 7) / 8);
    Divide(state, n);
    // What is no model of layers, the head of a critic, is too small to be worth it.
    const bool in_rooms = narrow && !set->adapter && weights.shape().layers > 0;
    state.grad = FlatBuffer(stream, in_rooms ? DType::kBFloat16 : DType::kFloat32,
                            state.grad_in_parts ? std::max<int64_t>(1, state.kept_elements()) : n);
    if (sharing.keeps_residuals()) state.residual = FlatBuffer(stream, DType::kFloat32, n);
    state.in_8_bits = compact;
    state.masters =
        set->flat.dtype() != DType::kFloat32 && options.masters == configs::Masters::kFloat32;
    TakeStateMemory(stream, options.offload, state);
    if (state.compact() && sharing.sharded()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "optimizer.moments = \"int8\" and optimizer.masters = \"none\" are kept whole by "
                  "every rank: set it to 0, or keep moments and masters as float32",
                  "run.zero");
    }
    if (state.compact() && (n != set->flat.elements() || state.rates != std::vector{1.0})) {
      throw Error(ErrorCode::kInvalidArgument,
                  "optimizer.moments = \"int8\" and optimizer.masters = \"none\" train all of a "
                  "model at one rate: leave policy.frozen and policy.learning_rates out, or keep "
                  "moments and masters as float32",
                  "policy");
    }
    if (state.compact()) {
      state.compact_tensors = CompactTensors(stream, *set->table);
      for (const auto& entry : set->table->entries())
        state.compact_blocks += kernels::MomentBlocks(entry.elements);
    }
    std::vector<std::byte> mask(state.decay_mask.bytes());
    for (const auto& entry : set->table->entries()) {
      const int64_t place = state.PlaceOf(entry);
      if (!entry.decay || place < 0) continue;
      const int64_t first = place / kernels::kDecayBlock;
      const int64_t end =
          (place + entry.elements + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
      std::memset(mask.data() + first, 1, static_cast<size_t>(end - first));
    }
    state.decay_mask.CopyFromHost(mask);
    sets_.push_back(std::move(state));
  }
  if (options.offload) ShareStateStream(stream, sets_);
  to_apply.CheckUsed();
  PLUMB_CHECK(any, "a model of which nothing is trained");
  if (sets_.empty())
    throw Error(ErrorCode::kInvalidArgument, "leaves nothing to train", "policy.frozen");
  for (SetState& state : sets_) {
    if (state.set->adapter) continue;
    if (state.grad_in_parts) {
      keeper_ = std::make_unique<PartKeeper>(state, sharing_);
      no_gradients_ = FlatBuffer::WithoutMemory(stream, DType::kFloat32, state.trained());
    }
    if (state.grad.dtype() == DType::kBFloat16) {
      const policy_model::TensorTable& table = weights.table();
      rooms_ = std::make_unique<GradientRooms>(
          state, !weights.shape().scalar_head && table.lm_head() == table.embedding());
      no_gradients_ = FlatBuffer::WithoutMemory(stream, DType::kFloat32, state.trained());
    }
    if (stream.device().is_cuda() && !keeper_ && !rooms_ && !sharing_.ranks && !sharing_.share &&
        !sharing_.experts.apart && weights.shape().layers > 0) {
      fresh_ = std::make_unique<FreshGradients>(state);
      no_gradients_ = FlatBuffer::WithoutMemory(stream, DType::kFloat32, state.trained());
    }
    gradients_.base = keeper_ || rooms_ || fresh_ ? &no_gradients_ : &state.grad;
    gradients_.base_runs = state.runs;
  }
  for (const auto& set : weights.adapters()) {
    adapter_grads_.push_back(nullptr);
    adapter_runs_.emplace_back();
    for (SetState& state : sets_) {
      if (state.set != set) continue;
      adapter_grads_.back() = &state.grad;
      adapter_runs_.back() = state.runs;
    }
  }
  gradients_.adapters = adapter_grads_;
  gradients_.adapter_runs = adapter_runs_;
  norm_scratch_ = FlatBuffer(stream, DType::kInt64, kernels::kNormScratch + 1);
  if (rules.scale_loss) loss_scale_ = LossScale(options.loss_scale, options.loss_scale_steps);
  PrepareGradients();
  AdoptWeights();
}

// What adapters drop by is another for every update, whether it was applied or not, and the same
// after a resume.
void Optimizer::PrepareGradients() {
  gradients_.loss_scale = static_cast<float>(loss_scale_.scale());
  const auto update = static_cast<uint64_t>(updates_ + skipped_);
  const Random4 bits = RandomAt(seed_, kDropoutStream, static_cast<uint32_t>(update),
                                static_cast<uint32_t>(update >> 32));
  gradients_.dropout_key = (uint64_t{bits.x[0]} << 32) | bits.x[1];
}

void Optimizer::ZeroGrad() {
  for (SetState& state : sets_) {
    if (fresh_ && !state.set->adapter) fresh_->BeginUpdate();
    else if (experts_wait() && !state.of_experts.empty()) ZeroExperts(state, /*experts=*/false);
    else state.grad.Zero();
  }
  if (rooms_) rooms_->BeginUpdate(gradients_.dropout_key);
}

void Optimizer::AdoptWeights() {
  constexpr int64_t kChunk = int64_t{1} << 22;
  std::vector<std::byte> rounded;
  std::vector<float> values;
  for (SetState& state : sets_) {
    if (!state.has_own_master()) continue;
    const FlatBuffer& flat = state.set->flat;
    const auto adopt = [&](const SetState::KeptRun& run) {
      for (int64_t at = run.begin; at < run.end; at += kChunk) {
        const auto n = static_cast<size_t>(std::min(kChunk, run.end - at));
        rounded.resize(n * ElementSize(flat.dtype()));
        values.resize(n);
        flat.CopyToHost(rounded, at);
        policy_model::ConvertToFloat(rounded.data(), flat.dtype(), values);
        state.own_master.CopyFromHost(std::as_bytes(std::span<const float>(values)),
                                      run.at + at - run.begin);
      }
    };
    for (const TrainedRun& whole : state.runs) {
      for (const Piece& piece : state.kept) adopt(state.KeptOf(whole, piece));
    }
  }
}

void Optimizer::ResetMoments() {
  for (SetState& state : sets_) {
    for (FlatBuffer* buffer : state.moments()) buffer->Zero();
  }
  for (SetState& state : sets_) {
    if (state.residual.elements() > 0) state.residual.Zero();
  }
  moment_steps_ = 0;
  left_out_.reset();
}

void Optimizer::Restore(const Counters& counters) {
  updates_ = counters.updates;
  skipped_ = counters.skipped;
  skipped_in_a_row_ = counters.skipped_in_a_row;
  loss_scale_.Restore(counters.loss_scale);
  PrepareGradients();
}

void Optimizer::ClipValues(double loss_scale) {
  if (options_.clip_value <= 0) return;
  auto* scratch = static_cast<double*>(norm_scratch_.data());
  double clipped = 0;
  int64_t trained = 0;  // without the padding between tensors
  double of_experts = 0;
  for (SetState& state : sets_) {
    for (size_t k = 0; k < state.kept.size(); ++k) {
      const Slice own = state.OwnGradient(state.kept[k]);
      if (own.size() == 0 || !Due(state, k)) continue;
      kernels::Call(
          {.stream = state.grad.stream(), .dtype = state.set->flat.dtype()},
          kernels::ClipValue{.grad = state.grad.at(own.begin),
                             .grad_dtype = state.grad.dtype(),
                             .n = own.size(),
                             .bound = static_cast<float>(options_.clip_value * loss_scale),
                             .scratch = scratch,
                             .out = scratch + kernels::kNormScratch});
      double count = 0;
      norm_scratch_.CopyToHost(std::as_writable_bytes(std::span(&count, 1)), kernels::kNormScratch);
      (OfExperts(state, k) ? of_experts : clipped) += count;
    }
    const auto& entries = state.set->table->entries();
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool of_whole = sharing_.share && sharing_.experts.apart;
      if (state.PlaceOf(entries[i]) < 0) continue;
      trained += of_whole ? sharing_.share->WholeEntry(i).elements : entries[i].elements;
    }
  }
  if (sharing_.experts.apart) clipped = OverRanks(clipped, of_experts);
  else if (sharded()) clipped = sharing_.ranks->Sum(clipped);
  if (sharing_.share && !sharing_.experts.apart) {
    clipped = sharing_.share->ranks().Sum(clipped);
    trained = static_cast<int64_t>(sharing_.share->ranks().Sum(static_cast<double>(trained)));
  }
  clipped_shares_ += clipped / static_cast<double>(trained);
  ++clip_updates_;
}

std::optional<double> Optimizer::TakeClippedShare() {
  const double sum = std::exchange(clipped_shares_, 0);
  const int64_t updates = std::exchange(clip_updates_, 0);
  if (updates == 0) return std::nullopt;
  return sum / static_cast<double>(updates);
}

double Optimizer::Squares(const SetState& state, const void* gradients, int64_t n) {
  auto* scratch = static_cast<double*>(norm_scratch_.data());
  kernels::Call({.stream = state.grad.stream(), .dtype = state.set->flat.dtype()},
                kernels::SumOfSquares{.grad = gradients,
                                      .grad_dtype = state.grad.dtype(),
                                      .n = n,
                                      .scratch = scratch,
                                      .out = scratch + kernels::kNormScratch});
  double squares = 0;
  norm_scratch_.CopyToHost(std::as_writable_bytes(std::span(&squares, 1)), kernels::kNormScratch);
  return squares;
}

// Of the gradients of all sets, on all ranks.
double Optimizer::SumOfSquares() {
  double total = 0, of_experts = 0;
  for (SetState& state : sets_) {
    for (size_t k = 0; k < state.kept.size(); ++k) {
      const Slice own = state.OwnGradient(state.kept[k]);
      if (own.size() == 0 || !Due(state, k)) continue;
      (OfExperts(state, k) ? of_experts : total) +=
          Squares(state, state.grad.at(own.begin), own.size());
    }
    if (!sharing_.share) continue;
    // What several ranks have all of counts once.
    for (const TensorEntry& entry : state.set->table->entries()) {
      if (!sharing_.share->CountsElsewhere(entry)) continue;
      for (const std::span<float> whole : KeptGradients(state, entry))
        total -= Squares(state, whole.data(), std::ssize(whole));
    }
  }
  if (sharing_.experts.apart) {
    total = OverRanks(total, of_experts);
    const double waiting = experts_due() ? 0 : WaitingSquares();
    return std::isfinite(waiting) ? total : waiting;
  }
  if (sharded()) total = sharing_.ranks->Sum(total);
  return sharing_.share ? sharing_.share->ranks().Sum(total) : total;
}

std::vector<FlatBuffer*> Optimizer::SetState::moments() {
  if (!in_8_bits) return {&m, &v};
  return {&m8.codes(), &m8.scales(), &v8.codes(), &v8.scales()};
}

void Optimizer::UpdateCompact(size_t set, const kernels::AdamwOptions& adamw) {
  SetState& state = sets_[set];
  if (state.through) {
    return UpdateOffloadedCompact(state, static_cast<uint32_t>(set), seed_,
                                  static_cast<uint32_t>(updates_), adamw);
  }
  FlatBuffer& flat = state.set->flat;
  const auto moment = [&](FlatBuffer& exact, CompactMoments& compact) {
    return !state.in_8_bits ? kernels::MomentState{.exact = exact.f32()} : compact.Of(0);
  };
  const bool own = state.has_own_master(), is_float = flat.dtype() == DType::kFloat32;
  kernels::Call(
      {.stream = flat.stream(), .dtype = flat.dtype()},
      kernels::AdamwCompactSet{
          .all = {.param = is_float ? nullptr : flat.data(),
                  .master = own || is_float ? state.master().f32() : nullptr,
                  .m = moment(state.m, state.m8),
                  .v = moment(state.v, state.v8),
                  .grad = state.grad.data(),
                  .grad_dtype = state.grad.dtype(),
                  .options = adamw,
                  .seed = seed_,
                  .set = static_cast<uint32_t>(set),
                  .draw_step = static_cast<uint32_t>(updates_)},
          .tensors = static_cast<const kernels::CompactTensor*>(state.compact_tensors.data()),
          .count = std::ssize(state.set->table->entries()),
          .blocks = state.compact_blocks});
}

void Optimizer::UpdateRun(SetState& state, const SetState::KeptRun& run,
                          const kernels::AdamwOptions& adamw) {
  const FlatBuffer& flat = state.set->flat;
  if (run.begin == run.end) return;
  if (state.through) return UpdateOffloadedRun(state, run, adamw);
  const auto* decays = static_cast<const uint8_t*>(state.decay_mask.data());
  kernels::Call(
      {.stream = flat.stream(), .dtype = flat.dtype()},
      kernels::AdamwUpdate{.master = state.master(run),
                           .m = state.m.f32() + run.at,
                           .v = state.v.f32() + run.at,
                           .grad = state.gradient(run),
                           .grad_dtype = state.grad.dtype(),
                           .decay_mask = decays + run.place / kernels::kDecayBlock,
                           .n = run.end - run.begin,
                           .options = adamw,
                           .param = state.has_own_master() ? state.weights(run) : nullptr});
}

void Optimizer::UpdateWithMuon(SetState& state, const SetState::KeptRun& run,
                               const kernels::AdamwOptions& adamw, double muon_rate) {
  const FlatBuffer& flat = state.set->flat;
  const auto part = [&](int64_t begin, int64_t end) {
    const int64_t further = begin - run.begin;
    return SetState::KeptRun{
        .begin = begin, .end = end, .place = run.place + further, .at = run.at + further};
  };
  int64_t rest = run.begin;  // what AdamW has not seen yet begins here
  const MuonOptions options{.learning_rate = static_cast<double>(adamw.learning_rate) * muon_rate,
                            .momentum = options_.muon_momentum,
                            .weight_decay = static_cast<double>(adamw.weight_decay),
                            .grad_scale = static_cast<double>(adamw.grad_scale)};
  for (const TensorEntry& entry : state.set->table->entries()) {
    if (entry.offset < run.begin || entry.offset >= run.end) continue;
    const std::vector<MuonMatrix> matrices = MuonMatrices(entry);
    if (matrices.empty()) continue;
    UpdateRun(state, part(rest, entry.offset), adamw);
    const int64_t columns = entry.columns();
    for (const MuonMatrix& matrix : matrices) {
      const int64_t first = entry.offset + matrix.row_begin * columns;
      const SetState::KeptRun own = part(first, first + matrix.rows * columns);
      float* master = state.master(own);
      MuonUpdate(flat.stream(), matrix.rows, columns, master, state.m.f32() + own.at,
                 static_cast<const float*>(state.gradient(own)), options);
      if (state.has_own_master())
        RoundToBFloat16(flat.stream(), master, static_cast<BFloat16*>(state.weights(own)),
                        own.end - own.begin);
    }
    // Padding behind the tensor is AdamW's, and stays 0.
    const int64_t end = entry.offset + entry.elements;
    const int64_t next =
        (end + kernels::kDecayBlock - 1) / kernels::kDecayBlock * kernels::kDecayBlock;
    rest = std::min(next, run.end);
  }
  UpdateRun(state, part(rest, run.end), adamw);
}

UpdateResult Optimizer::Update(double learning_rate, double loss,
                               std::optional<double> weight_decay,
                               std::optional<double> loss_scale) {
  Settle();
  const double scale = loss_scale.value_or(loss_scale_.scale());
  AddUpGradients();
  ClipValues(scale);
  const double squares = SumOfSquares();
  UpdateResult result;
  result.grad_norm = std::sqrt(squares) / scale;
  const bool loss_is_finite = std::isfinite(loss), finite = std::isfinite(squares);
  if (!loss_is_finite) result.why_skipped = "the loss is not finite";
  else if (!finite) result.why_skipped = "the gradient is not finite";
  if (!result.why_skipped.empty())
    return Skip(std::move(result), loss_scale_.on() && !finite, loss_is_finite);

  kernels::AdamwOptions adamw{
      .learning_rate = static_cast<float>(learning_rate),
      .beta1 = static_cast<float>(options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .eps = static_cast<float>(options_.eps),
      .weight_decay = static_cast<float>(weight_decay.value_or(options_.weight_decay)),
      .grad_scale = static_cast<float>(1 / scale),
      .step = moment_steps_ + 1};
  if (options_.grad_clip > 0 && result.grad_norm > options_.grad_clip) {
    adamw.grad_scale = static_cast<float>(options_.grad_clip / (result.grad_norm + 1e-6) / scale);
  }
  const std::shared_ptr<StateStream> through = sets_.front().through;
  if (through) through->Begin();
  for (size_t i = 0; i < sets_.size(); ++i) {
    SetState& state = sets_[i];
    if (state.compact()) {
      UpdateCompact(i, adamw);
      continue;
    }
    for (size_t r = 0; r < state.runs.size(); ++r) {
      adamw.learning_rate = static_cast<float>(learning_rate * state.rates[r]);
      for (size_t k = 0; k < state.kept.size(); ++k) {
        const SetState::KeptRun run = state.KeptOf(state.runs[r], state.kept[k]);
        if (run.begin == run.end || !Due(state, k)) continue;
        adamw.step = (moment_steps_ + 1) / (OfExperts(state, k) ? sharing_.experts.sync_every : 1);
        if (options_.name == configs::OptimizerName::kMuon)
          UpdateWithMuon(state, run, adamw, options_.muon_learning_rate / options_.learning_rate);
        else UpdateRun(state, run, adamw);
      }
    }
    if (sharded()) ShareUpdated(state);
  }
  if (through) through->End();
  ++moment_steps_;
  left_out_.reset();
  ++updates_;
  if (loss_scale_.on()) loss_scale_.Passed();
  PrepareGradients();
  skipped_in_a_row_ = 0;
  result.applied = true;
  return result;
}

}  // namespace plumb::learner
