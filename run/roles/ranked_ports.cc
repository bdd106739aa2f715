#include "run/roles/ranked_ports.h"

#include <exception>
#include <utility>

#include "common/base/error.h"
#include "common/net/wire_fields.h"
#include "common/record/group_body.h"
#include "replay/store/byte_io.h"
#include "replay/store/record.h"

namespace plumb::run {
namespace {

constexpr char kValue = 'v', kError = 'e', kWaiting = 'w';
constexpr std::chrono::seconds kBetweenSigns{5};

struct ErrorFields {
  uint8_t code = 0;
  std::string message, where;
  template <class Self, class Visit>
  static void Fields(Self& s, Visit visit) {
    visit(s.code, s.message, s.where);
  }
};

std::string EncodeError(ErrorCode code, const std::string& message, const std::string& where) {
  return kError + EncodeFields(ErrorFields{static_cast<uint8_t>(code), message, where});
}

// Of rank 0's last word; nullopt: it still waits.
std::optional<std::string> Heard(const std::string& said) {
  PLUMB_CHECK(!said.empty(), "rank 0 says something");
  if (said[0] == kWaiting) return std::nullopt;
  if (said[0] == kValue) return said.substr(1);
  const auto error =
      DecodeFields<ErrorFields>(std::string_view(said).substr(1), "the error of rank 0");
  throw Error(static_cast<ErrorCode>(error.code), error.message, error.where);
}

// Ranks of one group are of one build: the parts of a group as the store has them.
std::string EncodeGroups(std::span<const TrajectoryGroup> groups) {
  replay::ByteWriter writer;
  writer.U32(static_cast<uint32_t>(groups.size()));
  for (const TrajectoryGroup& group : groups) {
    const GroupBody body = GroupBody::Seal(group);
    writer.Bytes(body.bytes().view());
    writer.Bytes(replay::EncodeGroupScore(replay::ScoresOf(group), body.sum()));
  }
  return writer.Take();
}

std::vector<TrajectoryGroup> DecodeGroups(const std::string& bytes) {
  constexpr char kWhat[] = "groups of rank 0";
  replay::ByteReader reader(bytes, kWhat);
  std::vector<TrajectoryGroup> groups;
  for (uint32_t left = reader.U32(); left > 0; --left) {
    const GroupBody body = GroupBody::Open(Payload(std::string(reader.Bytes(bytes.size()))));
    TrajectoryGroup& group = groups.emplace_back(body.Unpack());
    replay::ApplyScores(replay::DecodeGroupScore("", reader.Bytes(bytes.size())), group);
  }
  reader.ExpectEnd();
  return groups;
}

struct SequenceFields {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;
  template <class Self, class Visit>
  static void Fields(Self& s, Visit visit) {
    visit(s.tokens, s.mask);
  }
  static SequenceFields Of(const Demonstration& d) { return {d.tokens, d.loss_mask}; }
  Demonstration demonstration() && { return {std::move(tokens), std::move(mask)}; }
};

// A pair, or a judged completion with an empty second sequence.
struct RowFields {
  std::string dataset;
  uint64_t row = 0;
  SequenceFields first, second;
  double margin = 0;
  bool has_margin = false, desirable = false;
  template <class Self, class Visit>
  static void Fields(Self& s, Visit visit) {
    visit(s.dataset, s.row, s.first, s.second, s.margin, s.has_margin, s.desirable);
  }
};

RowFields RowOf(const PreferencePair& p) {
  return {.dataset = p.dataset,
          .row = p.row,
          .first = SequenceFields::Of(p.chosen),
          .second = SequenceFields::Of(p.rejected),
          .margin = p.margin,
          .has_margin = p.has_margin};
}

RowFields RowOf(const LabelledCompletion& c) {
  return {.dataset = c.dataset,
          .row = c.row,
          .first = SequenceFields::Of(c.completion),
          .desirable = c.desirable};
}

void FromRow(RowFields&& row, PreferencePair& to) {
  to = {.dataset = std::move(row.dataset),
        .row = row.row,
        .chosen = std::move(row.first).demonstration(),
        .rejected = std::move(row.second).demonstration(),
        .margin = row.margin,
        .has_margin = row.has_margin};
}

void FromRow(RowFields&& row, LabelledCompletion& to) {
  to = {.dataset = std::move(row.dataset),
        .row = row.row,
        .completion = std::move(row.first).demonstration(),
        .desirable = row.desirable};
}

struct DataFields {
  std::string identity;
  std::vector<RowFields> train, heldout, completions, completions_heldout;
  template <class Self, class Visit>
  static void Fields(Self& s, Visit visit) {
    visit(s.identity, s.train, s.heldout, s.completions, s.completions_heldout);
  }
};

template <class Row>
std::vector<RowFields> RowsOf(const std::vector<Row>& rows) {
  std::vector<RowFields> out;
  for (const Row& row : rows) out.push_back(RowOf(row));
  return out;
}

template <class Row>
std::vector<Row> FromRows(std::vector<RowFields>&& rows) {
  std::vector<Row> out(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) FromRow(std::move(rows[i]), out[i]);
  return out;
}

// What rank 0's `make` comes to, as the others hear it; it goes on by `thrown`, where that is set.
std::string TextOrThrown(const std::function<std::string()>& make, std::exception_ptr& thrown) {
  try {
    return kValue + make();
  } catch (const learner::RankLost&) {
    throw;  // there is nobody to tell, or it was told
  } catch (const Error& e) {
    thrown = std::current_exception();
    return EncodeError(e.code(), e.message(), e.where());
  }
}

}  // namespace

std::string Shared(learner::Ranks& ranks, const std::function<std::string()>& make) {
  if (!ranks.first()) {
    for (;;) {
      if (auto heard = Heard(ranks.Share(""))) return *std::move(heard);
    }
  }
  std::exception_ptr thrown;
  const std::string said = TextOrThrown(make, thrown);
  ranks.Share(said);
  if (thrown) std::rethrow_exception(thrown);
  return said.substr(1);
}

std::vector<TrajectoryGroup> RankedBatches::Wait(
    const std::function<std::vector<TrajectoryGroup>()>& ask) {
  if (!ranks_.first()) return DecodeGroups(Shared(ranks_, nullptr));
  std::vector<TrajectoryGroup> groups;
  waiting_ = true;
  said_ = std::chrono::steady_clock::now();
  Shared(ranks_, [&] {
    try {
      groups = ask();
    } catch (...) {
      waiting_ = false;
      throw;
    }
    waiting_ = false;
    return EncodeGroups(groups);
  });
  return groups;
}

void RankedBatches::StillWaiting() {
  const auto now = std::chrono::steady_clock::now();
  if (!waiting_ || now < said_ + kBetweenSigns) return;
  said_ = now;
  ranks_.Share(std::string(1, kWaiting));
}

std::vector<TrajectoryGroup> RankedBatches::Next(int64_t step, Deadline deadline) {
  return Wait([&] { return batches_->Next(step, deadline); });
}

std::vector<TrajectoryGroup> RankedBatches::Evaluate(int64_t version, int num_samples,
                                                     Deadline deadline) {
  return Wait([&] { return batches_->Evaluate(version, num_samples, deadline); });
}

void RankedBatches::Finish() {
  if (batches_) batches_->Finish();
}

void RankedBatches::Publish(const PolicyVersion& version, std::span<const WeightSet> sets) {
  if (weights_) weights_->Publish(version, sets);
}

std::optional<std::vector<float>> RankedLogprobs::Get(const Digest& model, const Digest& sequence) {
  std::optional<std::vector<float>> found;
  const std::string said = Shared(ranks_, [&] {
    found = cache_->Get(model, sequence);
    return found ? "+" + replay::EncodeLogprobs(*found) : std::string();
  });
  if (ranks_.first() || said.empty()) return found;
  return replay::DecodeLogprobs("log-probs of rank 0", std::string_view(said).substr(1));
}

void RankedLogprobs::Put(const Digest& model, const Digest& sequence,
                         std::span<const float> logprobs) {
  if (cache_) cache_->Put(model, sequence, logprobs);
}

PreferenceData SharedPreferences(learner::Ranks& ranks,
                                 const std::function<PreferenceData()>& load) {
  PreferenceData own;
  const std::string said = Shared(ranks, [&] {
    own = load();
    return EncodeFields(DataFields{.identity = own.identity,
                                   .train = RowsOf(own.train),
                                   .heldout = RowsOf(own.heldout),
                                   .completions = RowsOf(own.completions),
                                   .completions_heldout = RowsOf(own.completions_heldout)});
  });
  if (ranks.first()) return own;
  auto data = DecodeFields<DataFields>(said, "the pairs of rank 0");
  own.identity = std::move(data.identity);
  own.train = FromRows<PreferencePair>(std::move(data.train));
  own.heldout = FromRows<PreferencePair>(std::move(data.heldout));
  own.completions = FromRows<LabelledCompletion>(std::move(data.completions));
  own.completions_heldout = FromRows<LabelledCompletion>(std::move(data.completions_heldout));
  return own;
}

}  // namespace plumb::run
