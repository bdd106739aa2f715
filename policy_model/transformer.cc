#include "policy_model/transformer.h"

#include <algorithm>
#include <vector>

#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/batch_check.h"
#include "policy_model/batch_indices.h"
#include "policy_model/head_pass.h"
#include "policy_model/kept_logits.h"
#include "policy_model/layers/expert_visits.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/staging.h"
#include "policy_model/memory/task_weights.h"
#include "policy_model/pass_memory.h"
#include "policy_model/pass_products.h"
#include "policy_model/routed_experts.h"
#include "policy_model/seen_lists.h"
#include "policy_model/stage_ends.h"
#include "policy_model/task_pass.h"
#include "policy_model/vocabulary.h"

namespace plumb::policy_model {
using kernels::Call;
using kernels::Launch;

void SetThreads(int threads) { ops::SetThreads(threads); }
int Threads() { return ops::Threads(); }

struct Transformer::Impl {
  const ModelShape shape;
  const DType dtype;
  const Launch launch;
  const size_t element;
  const TensorTable table;  // offsets and plan; weights of another shape are refused
  const NormLayer final_norm;
  const float embedding_scale;
  const float logit_scale;  // of the rows that the head sees; 1 for a scalar head
  std::vector<RotaryTable> rotary;
  std::vector<Branch> branches;  // two a layer
  Arena saved, scratch, paged;

  PassMemory memory;                                       // of the last pass
  configs::Products products = configs::Products::kDType;  // of passes to come
  bool recompute = false;                                  // the same
  int64_t kept_tokens = -1, kept_rows = -1, last_rows = -1;
  float kept_temperature = 1;
  std::optional<uint64_t> dropout;  // of the last forward

  // A call's small arrays in the device's memory.
  Staging staging;
  HeadPass head;
  KeptLogits logits;
  float* kept_logits = nullptr;  // of the last forward
  PassGuest* guest = nullptr;    // of the last forward
  StageEnds* ends = nullptr;     // the same, of a stage of a pipeline
  SeenLists lists;               // of attention that needs them
  Routing routing;               // of the layers that have experts
  RoutedExperts routed;
  TaskPass tasks;  // of the last pass
  Vocabulary vocabulary;
  const ParameterSet* parted = nullptr;  // the base whose parts these are:
  PassParts* parts_of = nullptr;
  std::unique_ptr<ExpertVisits> visits;  // where ranks share experts out
  using Indices = BatchIndices;

  Impl(const ModelShape& s, const Stream& on, DType t)
      : shape(s),
        dtype(t),
        launch{.stream = on, .dtype = t},
        element(ElementSize(t)),
        table(s),
        final_norm(FinalNormOf(table)),
        embedding_scale(EmbeddingScaleOf(table, t)),
        logit_scale(s.scalar_head ? 1.0f : static_cast<float>(1 / table.plan().logit_divisor)),
        branches(BranchesOf(table)),
        saved(on),
        scratch(on),
        paged(on),
        staging(on),
        head(shape, launch),
        logits(on),
        routed(on),
        tasks(on),
        vocabulary(on, s.vocab) {
    if (s.layers < 1)
      throw Error(ErrorCode::kInvalidArgument, "a model without layers cannot be run");
    for (const LayerSpec& layer : table.plan().layers) {
      if (layer.experts.there()) routing.load.emplace_back();
    }
    for (const RotarySpec& spec : table.plan().rotary)
      rotary.push_back(MakeRotaryTable(spec, s.max_positions, on));
  }

  int64_t T(int64_t elements) const { return elements * static_cast<int64_t>(element); }
  int64_t H() const { return shape.hidden; }

  // `g_first`, `g_second` and `g_third`: gradients by row of a backward, or empty.
  Indices Stage(const PackedBatch& batch, std::span<const float> g_first = {},
                std::span<const float> g_second = {}, std::span<const float> g_third = {}) {
    lists.Fill(batch, launch.device());
    Indices at =
        StageBatch(batch, tasks.Known(batch.tokens), lists, {g_first, g_second, g_third}, staging);
    at.targets = vocabulary.Targets(at.targets);
    return at;
  }

  // The values in the model's type, in whole words for the staging area.
  std::vector<float> Rounded(std::span<const float> values) const {
    std::vector<float> words((values.size() * element + 3) / 4);
    ConvertFloat(values, dtype, words.data());
    return words;
  }

  void CheckWith(const Weights& weights, const PackedBatch& batch) {
    tasks.Begin(weights, batch);
    CheckBatch(shape, tasks, batch, ends ? ends->vocab : vocabulary.all());
    vocabulary.Begin(batch);
  }

  // nullptr: the base lies in its flat buffer.
  PassParts* PartsOf(const Weights& w) const { return parted == &w.base() ? parts_of : nullptr; }
  void EndPass(const Weights& w, PassParts::Way way) const {
    if (PassParts* const parts = PartsOf(w)) parts->End(way);
  }
  // Of the base, in a pass.
  const void* W(const Weights& w, int64_t offset) const {
    const PassParts* parts = PartsOf(w);
    return parts ? parts->Weight(offset) : w.flat().at(offset);
  }

  // Of a pipeline, a stage that does not score rows.
  bool passes_on() const { return ends && !ends->last; }
  int64_t RowsOf(const PackedBatch& batch) const {
    return passes_on() ? 0 : static_cast<int64_t>(batch.rows.size());
  }
  void Guest(PassGuest* of_pass) {
    ends = dynamic_cast<StageEnds*>(of_pass);
    guest = ends ? nullptr : of_pass;
  }

  Routing* experts() { return routing.load.empty() ? nullptr : &routing; }

  PackedPass PassOf(const Weights& w, const PackedBatch& batch, const Indices& at, bool keep) {
    PackedPass pass{
        {launch, w, rotary, dropout, experts(), tasks.gate(), PartsOf(w), vocabulary.group()},
        AttentionOf(shape, batch, at, lists),
        at.positions,
        keep,
        saved,
        scratch};
    SetProducts(products, pass);
    return pass;
  }

  // Everything up to the final hidden states; what is not kept shares one layer's memory.
  void Trunk(const Weights& w, const PackedBatch& batch, bool keep) {
    const int64_t n = batch.size(), h = H(), rows = RowsOf(batch);
    const Indices at = Stage(batch);
    const PackedPass pass = PassOf(w, batch, at, keep);
    routed.Begin(routing, batch.experts, n, shape.experts.per_token);
    routing.pass += keep;
    if (visits) visits->again = recompute;
    memory.PlanForward(branches, pass, rows, recompute);
    saved.Commit();
    scratch.Commit();
    PassParts* const parts = PartsOf(w);
    constexpr auto kWay = PassParts::Way::kForward;
    if (parts) parts->Begin(kWay);

    void* x = saved.At(memory.residual[0]);
    if (ends && !ends->first) {
      kernels::Copy(launch.stream, x, ends->input, static_cast<size_t>(T(n * h)));
    } else {
      vocabulary.Embed(pass, n, table.embedding(), at.tokens, embedding_scale,
                       scratch.At(memory.own_rows), x);
    }
    tasks.Embed(w, batch.tokens, x);
    if (guest) guest->Embedded(launch, n, h, x);
    for (size_t i = 0; i < branches.size(); ++i) {
      void* next = saved.At(memory.residual[i + 1]);
      const auto layer = static_cast<int64_t>(i / kBranchesALayer);
      if (parts && i % kBranchesALayer == 0) parts->Enter(kWay, layer);
      branches[i].Forward(pass, x, next);
      if (parts && (i + 1) % kBranchesALayer == 0) parts->Leave(kWay, layer);
      x = next;
    }
    if (passes_on()) {
      ends->output = x;
      return;
    }
    // Only the rows that are scored go on to the final norm and the head.
    void* gathered = scratch.At(memory.gathered_rows);
    Call(launch, kernels::GatherRows{
                     .table = x, .index = at.rows, .rows = rows, .width = h, .out = gathered});
    NormRows(pass, gathered, rows, saved.At(memory.normed), F(saved, memory.final_rstd));
  }

  // The rows as the head sees them: they are divided instead of the logits, being narrower.
  void NormRows(const Pass& pass, const void* x, int64_t rows, void* out, float* rstd) const {
    final_norm.Forward(pass, x, rows, out, rstd);
    if (logit_scale != 1) ops::Scale(launch, rows * H(), logit_scale, out);
  }

  // `chunk`: rows of logits at a time.
  PackedPass PlanBackward(const Weights& weights, const PackedBatch& batch, const Indices& at,
                          int64_t chunk, const Gradients& grad);
  void NormBackward(const PackedBatch& batch, const Indices& at, const PackedPass& pass, void* dx);
  void TrunkBackward(const PackedBatch& batch, const Indices& at, const PackedPass& pass);
  void ForwardAgain(const PackedPass& pass, size_t first);
  void VisitOnly(const Weights& w, PassParts::Way way, bool keep, const Gradients& grad);
  static float* F(Arena& arena, int64_t at) { return static_cast<float*>(arena.At(at)); }
  int64_t HeadChunk(int64_t rows) const {
    return PassMemory::HeadRows(launch, shape, rows, guest != nullptr);
  }
  HeadPass::Rows HeadOf(const Weights& w, const PackedBatch& batch, const Indices& at,
                        float temperature) {
    return {.batch = batch,
            .targets = at.targets,
            .normed = static_cast<const std::byte*>(saved.At(memory.normed)),
            .w = W(w, w.table().lm_head()),
            .temperature = temperature,
            .logprob = F(saved, memory.logprob),
            .entropy = F(saved, memory.entropy),
            .lse = F(saved, memory.lse),
            .guest = guest,
            .kept = kept_logits};
  }
};

Transformer::Transformer(const ModelShape& shape, const Stream& stream, DType dtype)
    : impl_(std::make_unique<Impl>(shape, stream, dtype)) {}
Transformer::~Transformer() = default;
const ModelShape& Transformer::shape() const { return impl_->shape; }
DType Transformer::dtype() const { return impl_->dtype; }
const void* Transformer::step_memory() const { return impl_->paged.At(0); }
void Transformer::SetParts(const ParameterSet* base, PassParts* parts) {
  impl_->parted = base;
  impl_->parts_of = parts;
}

void Transformer::SetGroup(TensorGroup* group, int64_t vocab) {
  impl_->vocabulary.Use(group, vocab);
}

void Transformer::SetExpertGroup(ExpertGroup* group) {
  Impl& m = *impl_;
  m.visits.reset();
  if (group) m.visits = std::make_unique<ExpertVisits>(group, m.launch.stream);
  m.routing.visits = m.visits.get();
}

void Transformer::PassBy(const Weights& weights, PassParts::Way way, bool keep,
                         const Gradients& grad) {
  Impl& m = *impl_;
  if (PassParts* const parts = m.PartsOf(weights)) parts->PassBy(way, m.shape.layers);
  if (m.visits) m.VisitOnly(weights, way, keep, grad);
}

void Transformer::RecomputeLayers(bool on) { impl_->recompute = on; }
void Transformer::UseProducts(configs::Products products) {
  CheckProducts(products, impl_->launch.stream, impl_->dtype, impl_->table);
  impl_->products = products;
}
int64_t Transformer::arena_bytes() const {
  return impl_->saved.bytes() + impl_->scratch.bytes() + impl_->paged.bytes();
}

void Transformer::SetRouting(const RoutingOptions& options) { impl_->routing.options = options; }
void Transformer::SetRoutingPass(uint64_t pass) { impl_->routing.pass = pass; }
void Transformer::SetRoutingShare(double share) { impl_->routing.share = share; }

std::span<const int32_t> Transformer::experts() const {
  return impl_->routed.taken(impl_->routing);
}

std::vector<LayerLoad> Transformer::TakeLoad() { return impl_->routing.TakeLoad(); }

void Transformer::Forward(const Weights& weights, const PackedBatch& batch,
                          const ScoreOptions& options, bool keep, std::span<float> logprob,
                          std::span<float> entropy) {
  Impl& m = *impl_;
  m.Guest(options.guest);
  const int64_t rows = m.RowsOf(batch);
  PLUMB_CHECK(!m.shape.scalar_head, "a model with a scalar head has no log-probs");
  PLUMB_CHECK(static_cast<int64_t>(logprob.size()) == rows);
  PLUMB_CHECK(!options.entropy || static_cast<int64_t>(entropy.size()) == rows);
  m.kept_tokens = -1;
  m.last_rows = rows;
  m.dropout = options.dropout;
  if (batch.rows.empty()) return;
  m.CheckWith(weights, batch);
  if (!m.passes_on()) CheckTargets(m.shape, batch, m.vocabulary.first());
  m.Trunk(weights, batch, keep);
  if (m.passes_on()) {
    m.EndPass(weights, PassParts::Way::kForward);
    m.kept_tokens = keep ? batch.size() : -1;
    m.kept_rows = rows;
    return;
  }
  const Impl::Indices at = m.Stage(batch);
  m.scratch.Begin();
  const int64_t logits_at = m.scratch.Reserve(
      PassMemory::HeadBytes(m.launch, m.shape, m.HeadChunk(rows), m.guest != nullptr));
  m.scratch.Commit();
  m.kept_logits = keep ? m.logits.Room(rows, m.shape.vocab) : nullptr;
  const HeadPass::Rows head = m.HeadOf(weights, batch, at, options.temperature);
  m.head.Forward(head, Impl::F(m.scratch, logits_at));
  m.EndPass(weights, PassParts::Way::kForward);
  m.vocabulary.Combine(m.launch.stream, rows, head.logprob, head.entropy, head.lse);
  kernels::CopyAndWait(m.launch.stream, logprob.data(), head.logprob, logprob.size_bytes());
  if (options.entropy)
    kernels::CopyAndWait(m.launch.stream, entropy.data(), head.entropy, entropy.size_bytes());
  if (keep) {
    m.kept_tokens = batch.size();
    m.kept_rows = rows;
    m.kept_temperature = options.temperature;
  }
}

void Transformer::HeadValues(const Weights& head, std::span<float> values) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(values.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.last_rows == rows, "HeadValues needs a Forward of the same batch");
  PLUMB_CHECK(head.shape().hidden == m.H() && head.flat().dtype() == m.dtype,
              "a head of this model");
  float* out = Impl::F(m.saved, m.memory.logprob);  // the log-probs are with the caller already
  ops::LinearToFloat(m.launch, m.saved.At(m.memory.normed), head.flat().at(head.table().score()),
                     rows, 1, m.H(), out);
  kernels::CopyAndWait(m.launch.stream, values.data(), out, values.size_bytes());
}

void Transformer::ForwardValues(const Weights& weights, const PackedBatch& batch, bool keep,
                                std::span<float> values) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  PLUMB_CHECK(m.shape.scalar_head, "values need a model with a scalar head");
  PLUMB_CHECK(static_cast<int64_t>(values.size()) == rows);
  m.kept_tokens = -1;
  m.dropout.reset();
  m.Guest(nullptr);
  if (rows == 0) return;
  m.CheckWith(weights, batch);
  m.Trunk(weights, batch, keep);
  float* out = Impl::F(m.saved, m.memory.logprob);
  ops::LinearToFloat(m.launch, m.saved.At(m.memory.normed), m.W(weights, weights.table().score()),
                     rows, 1, m.H(), out);
  m.EndPass(weights, PassParts::Way::kForward);
  kernels::CopyAndWait(m.launch.stream, values.data(), out, values.size_bytes());
  if (keep) {
    m.kept_tokens = batch.size();
    m.kept_rows = rows;
  }
}

PackedPass Transformer::Impl::PlanBackward(const Weights& weights, const PackedBatch& batch,
                                           const Indices& at, int64_t chunk,
                                           const Gradients& grad) {
  PackedPass pass = PassOf(weights, batch, at, true);
  pass.grad = grad;
  PLUMB_CHECK(pass.parts || !grad.base || grad.base->data(),
              "gradients that are kept in parts need SetParts");
  if (PassParts* const parts = PartsOf(weights)) parts->Begin(PassParts::Way::kBackward);
  memory.PlanBackward(branches, pass, RowsOf(batch), chunk, guest != nullptr);
  scratch.Commit();
  pass.norm_scratch = F(scratch, memory.partial);
  return pass;
}

void Transformer::Backward(const Weights& weights, const PackedBatch& batch,
                           std::span<const float> g_logprob, std::span<const float> g_entropy,
                           const Gradients& grad, const SharedHead* shared) {
  Impl& m = *impl_;
  const int64_t h = m.H(), rows = m.RowsOf(batch);
  if (batch.rows.empty()) return;
  PLUMB_CHECK(m.kept_tokens == batch.size() && m.kept_rows == rows,
              "Backward needs Forward(keep = true) of the same batch");
  PLUMB_CHECK(static_cast<int64_t>(g_logprob.size()) == rows);
  std::vector<float> g_values;
  if (shared) {
    PLUMB_CHECK(static_cast<int64_t>(shared->g_values.size()) == rows);
    g_values = m.Rounded(shared->g_values);
  }
  const Impl::Indices at = m.Stage(batch, g_logprob, g_entropy, g_values);
  if (m.passes_on()) return m.TrunkBackward(batch, at, m.PlanBackward(weights, batch, at, 0, grad));
  const PackedPass pass = m.PlanBackward(weights, batch, at, m.HeadChunk(rows), grad);
  const PassMemory& p = m.memory;

  Arena& a = m.scratch;
  auto* dhead = static_cast<std::byte*>(a.At(p.dhead));
  const HeadPass::Rows head = m.HeadOf(weights, batch, at, m.kept_temperature);
  const int64_t lm_head = weights.table().lm_head();
  const bool empty = !m.head.Fused(head) && pass.TakeEmpty(lm_head, m.shape.vocab * h);
  m.head.Backward(head, {.g_logprob = at.g_first,
                         .g_entropy = at.g_second,
                         .logits = Impl::F(a, p.logits),
                         .dlogits = a.At(p.dlogits),
                         .dhead = dhead,
                         .dw = pass.G(lm_head),
                         .dw_empty = empty});
  if (pass.group) pass.group->Sum(m.launch.stream, m.dtype, dhead, rows * h);
  if (shared) {
    const int64_t score = shared->head->table().score();
    ops::LinearBackwardInput(m.launch, at.g_third, shared->head->flat().at(score), rows, 1, h, true,
                             dhead);
    ops::LinearBackwardWeight(m.launch, at.g_third, head.normed, rows, 1, h,
                              shared->grad->f32() + score);
  }
  m.TrunkBackward(batch, at, pass);
}

void Transformer::BackwardValues(const Weights& weights, const PackedBatch& batch,
                                 std::span<const float> g_values, const Gradients& grad) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  if (rows == 0) return;
  PLUMB_CHECK(m.shape.scalar_head, "values need a model with a scalar head");
  PLUMB_CHECK(m.kept_tokens == batch.size() && m.kept_rows == rows,
              "BackwardValues needs ForwardValues(keep = true) of the same batch");
  PLUMB_CHECK(static_cast<int64_t>(g_values.size()) == rows);
  // The head is a product with one column; its gradient in the model's type.
  const std::vector<float> words = m.Rounded(g_values);
  const int64_t score = weights.table().score();
  const Impl::Indices at = m.Stage(batch, words);
  const PackedPass pass = m.PlanBackward(weights, batch, at, 0, grad);
  ops::LinearBackwardInput(m.launch, at.g_first, pass.W(score), rows, 1, m.H(), false,
                           m.scratch.At(m.memory.dhead));
  if (float* g = pass.G(score))
    ops::LinearBackwardWeight(m.launch, at.g_first, m.saved.At(m.memory.normed), rows, 1, m.H(), g);
  m.TrunkBackward(batch, at, pass);
}

// The gradient of what the last layer gives, from that of the normed rows.
void Transformer::Impl::NormBackward(const PackedBatch& batch, const Indices& at,
                                     const PackedPass& pass, void* dx) {
  const int64_t n = batch.size(), h = H();
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const PassMemory& p = memory;
  Arena& a = scratch;
  // Final norm on the scored rows, scattered back over all tokens.
  Call(launch, kernels::GatherRows{.table = saved.At(p.residual.back()),
                                   .index = at.rows,
                                   .rows = rows,
                                   .width = h,
                                   .out = a.At(p.gathered)});
  if (logit_scale != 1) ops::Scale(launch, rows * h, logit_scale, a.At(p.dhead));
  final_norm.Backward(pass, a.At(p.dhead), a.At(p.gathered), F(saved, p.final_rstd), rows, false,
                      a.At(p.dgathered));
  kernels::Zero(launch.stream, dx, static_cast<size_t>(T(n * h)));
  Call(launch, kernels::ScatterRows{
                   .d = a.At(p.dgathered), .index = at.rows, .rows = rows, .width = h, .out = dx});
}

// From the gradient of the normed rows, or of what a stage handed on, down to the embedding.
void Transformer::Impl::TrunkBackward(const PackedBatch& batch, const Indices& at,
                                      const PackedPass& pass) {
  const int64_t n = batch.size(), h = H();
  const PassMemory& p = memory;
  Arena& a = scratch;
  PassParts* const parts = PartsOf(pass.weights);
  constexpr auto kWay = PassParts::Way::kBackward;
  void* dx = a.At(p.dx);
  if (passes_on())
    kernels::Copy(launch.stream, dx, ends->output_gradient, static_cast<size_t>(T(n * h)));
  else NormBackward(batch, at, pass, dx);
  for (size_t i = branches.size(); i-- > 0;) {
    const auto layer = static_cast<int64_t>(i / kBranchesALayer);
    const bool last = (i + 1) % kBranchesALayer == 0, first = i % kBranchesALayer == 0;
    if (parts && last) parts->Enter(kWay, layer);
    if (p.recompute && last) ForwardAgain(pass, i + 1 - kBranchesALayer);
    branches[i].Backward(pass, saved.At(p.residual[i]), dx);
    if (parts && first) parts->Leave(kWay, layer);
  }
  // Tokens of tasks are none of the base's, which is not trained beside them.
  if (ends && !ends->first) {
    ends->input_gradient = dx;
  } else {
    vocabulary.EmbedBackward(pass, table.embedding(), at.tokens, embedding_scale, a.At(p.own_rows),
                             dx);
  }
  tasks.Backward(pass, batch.tokens, dx);
  if (guest) guest->EmbeddedBackward(launch, n, h, dx);
  if (parts) parts->End(kWay);
  kept_tokens = -1;  // saved memory was overwritten: one Backward a Forward
}

// What the branches of a layer saved, once more; `first` is the first of them.
void Transformer::Impl::ForwardAgain(const PackedPass& pass, size_t first) {
  PackedPass again = pass;
  again.again = true;
  for (size_t i = first; i < first + kBranchesALayer; ++i) {
    again.output = i + 1 < first + kBranchesALayer;
    branches[i].Forward(again, saved.At(memory.residual[i]),
                        again.output ? saved.At(memory.residual[i + 1]) : scratch.At(memory.spare));
  }
}

// The part that a rank without a batch has in the pass of the others: their rows at its experts.
void Transformer::Impl::VisitOnly(const Weights& w, PassParts::Way way, bool keep,
                                  const Gradients& grad) {
  const bool backward = way == PassParts::Way::kBackward;
  PackedPass pass{
      {launch, w, rotary, std::nullopt, experts()}, {}, nullptr, keep || backward, saved, scratch};
  pass.grad = grad;
  visits->again = recompute;
  for (size_t i = 0; i < branches.size() && !backward; ++i) branches[i].PassBy(pass, way);
  for (size_t i = branches.size(); backward && i-- > 0;) {
    const bool last = (i + 1) % kBranchesALayer == 0;
    for (size_t k = 0; recompute && last && k < kBranchesALayer; ++k)
      branches[i + 1 - kBranchesALayer + k].PassBy(pass, PassParts::Way::kForward);
    branches[i].PassBy(pass, way);
  }
}

void Transformer::Logits(const Weights& weights, const PackedBatch& batch, std::span<float> out) {
  Impl& m = *impl_;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  const int64_t v = m.shape.vocab, chunk = PassMemory::LogitRows(m.launch.device(), rows, v);
  PLUMB_CHECK(!m.shape.scalar_head && !m.vocabulary.group(), "a whole model that has logits");
  PLUMB_CHECK(static_cast<int64_t>(out.size()) == rows * v);
  m.kept_tokens = -1;
  m.dropout.reset();
  m.Guest(nullptr);
  if (rows == 0) return;
  m.CheckWith(weights, batch);
  m.Trunk(weights, batch, false);
  m.scratch.Begin();
  const int64_t logits_at = m.scratch.Reserve(4 * chunk * v);
  m.scratch.Commit();
  const auto* normed = static_cast<const std::byte*>(m.saved.At(m.memory.normed));
  for (int64_t r = 0; r < rows; r += chunk) {
    const int64_t n = std::min(chunk, rows - r);
    float* logits = Impl::F(m.scratch, logits_at);
    ops::LinearToFloat(m.launch, normed + m.T(r * m.H()), m.W(weights, weights.table().lm_head()),
                       n, v, m.H(), logits);
    m.head.DropUnused(logits, n);
    kernels::CopyAndWait(m.launch.stream, out.data() + r * v, logits,
                         static_cast<size_t>(4 * n * v));
  }
  m.EndPass(weights, PassParts::Way::kForward);
}

const float* Transformer::ForwardPaged(const Weights& weights, std::span<const int32_t> tokens,
                                       const kernels::PagedRows& rows, const kernels::PagedKv& kv,
                                       std::span<const int32_t> logit_rows,
                                       const kernels::SlidingPages* sliding,
                                       const kernels::SequenceStates* states,
                                       std::span<const int32_t> tasks,
                                       std::span<const int32_t> host_tokens) {
  Impl& m = *impl_;
  TensorGroup* const group = m.vocabulary.group();
  PLUMB_CHECK(tokens.size() == static_cast<size_t>(rows.rows) && rows.rows > 0);
  PLUMB_CHECK(!group || (host_tokens.size() == tokens.size() && tasks.empty()));
  const int64_t n = rows.rows, h = m.H();
  const auto outputs = static_cast<int64_t>(logit_rows.size());
  Arena& a = m.paged;
  m.routed.Begin(m.routing, {}, n, m.shape.experts.per_token);
  m.tasks.BeginRows(weights, tasks);
  const PagedPass pass{
      {m.launch, weights, m.rotary, std::nullopt, m.experts(), m.tasks.gate(), nullptr, group},
      rows,
      kv,
      a,
      sliding,
      states};
  StepMemory p;
  p.Plan(m.branches, pass, outputs, m.vocabulary.all());
  a.Commit();
  m.routed.BeginStep(m.routing, a.At(p.taken));
  void* x = a.At(p.x);
  const TensorTable& table = weights.table();
  if (group) m.vocabulary.BeginStep(host_tokens);
  m.vocabulary.Embed(pass, n, table.embedding(), m.tasks.KnownRows(tokens), m.embedding_scale,
                     group ? a.At(p.own_rows) : nullptr, x);
  m.tasks.EmbedRows(weights, tokens, x);
  for (Branch& branch : m.branches) branch.Step(pass, x);
  m.routed.EndStep(m.routing);
  auto* logits = static_cast<float*>(a.At(p.logits));
  if (outputs == 0) return logits;
  void* gathered = a.At(p.gathered);
  Call(m.launch,
       kernels::GatherRows{
           .table = x, .index = logit_rows.data(), .rows = outputs, .width = h, .out = gathered});
  m.NormRows(pass, gathered, outputs, gathered, nullptr);
  auto* const own = group ? static_cast<float*>(a.At(p.own_logits)) : logits;
  ops::LinearRowsToFloat(m.launch, gathered, weights.flat().at(table.lm_head()), outputs,
                         m.shape.vocab, h, own);
  m.head.DropUnused(own, outputs);
  if (group) m.vocabulary.Join(m.launch.stream, outputs, own, logits);
  return logits;
}

}  // namespace plumb::policy_model
