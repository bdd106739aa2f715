#include "learner/update/shares/experts/expert_share.h"

#include <cstring>

#include "common/base/error.h"
#include "common/base/hash/sha256.h"
#include "policy_model/families/experts/expert_share.h"

namespace plumb::learner {

using policy_model::ExpertRuns;
using policy_model::IsOfExperts;
using policy_model::ShareRun;
using policy_model::TensorEntry;
using policy_model::Weights;

namespace {

constexpr char kWhere[] = "run.parallel";

Weights MakeShare(const Ranks& group, const Weights& whole) {
  if (!whole.adapters().empty() || !whole.base().trained) {
    throw Error(ErrorCode::kUnsupported,
                "asks for ep=" + std::to_string(group.size()) +
                    ", and adapters are not shared out in this version: train the whole model "
                    "(policy.adapter = \"none\"), or share the work as dp=" +
                    std::to_string(group.size()),
                kWhere);
  }
  return {policy_model::ExpertShareOf(whole.shape(), group.rank(), group.size(), kWhere),
          whole.stream(), whole.dtype()};
}

}  // namespace

ExpertShare::ExpertShare(ExpertRanks& ranks, Weights& whole, Whole stays)
    : ModelShare(ranks.group(), whole, MakeShare(ranks.group(), whole), stays), experts_(ranks) {
  const auto& all = whole.table().entries();
  PLUMB_CHECK(weights().table().entries().size() == all.size(), "a share has the whole's tensors");
  for (size_t i = 0; i < all.size(); ++i) {
    const TensorEntry& own = weights().table().entries()[i];
    PLUMB_CHECK(
        own.name == all[i].name && own.elements == ExpertRuns(all[i], rank(), size())[0].size,
        "a share of " + all[i].name);
  }
  Take();
}

void ExpertShare::CheckUncut(const std::string& what) const {
  Sha256 hash;
  const policy_model::FlatBuffer& flat = const_cast<ExpertShare*>(this)->weights().flat();
  std::vector<std::byte> bytes;
  for (size_t i = 0; i < tensors(); ++i) {
    if (IsOfExperts(WholeEntry(i))) continue;
    bytes.resize(static_cast<size_t>(Own(i)->elements) * ElementSize(flat.dtype()));
    flat.CopyToHost(bytes, Own(i)->offset);
    hash.Update(bytes);
  }
  ranks().CheckSame(what + " that are not experts", hash.HexDigest());
}

std::vector<std::byte> ExpertShare::Cut(size_t i, size_t element,
                                        std::span<const std::byte> whole) const {
  const ShareRun run = ExpertRuns(WholeEntry(i), rank(), size())[0];
  const auto own = whole.subspan(static_cast<size_t>(run.whole) * element,
                                 static_cast<size_t>(run.size) * element);
  return {own.begin(), own.end()};
}

void ExpertShare::Join(size_t i, size_t element, std::span<const std::byte> own,
                       std::span<std::byte> whole) const {
  const TensorEntry& entry = WholeEntry(i);
  if (!IsOfExperts(entry)) {
    std::memcpy(whole.data(), own.data(), whole.size());
    return;
  }
  std::vector<Slice> places;
  for (int rank = 0; rank < size(); ++rank) {
    const ShareRun run = ExpertRuns(entry, rank, size())[0];
    const auto bytes = static_cast<int64_t>(element);
    places.push_back({.begin = run.whole * bytes, .end = (run.whole + run.size) * bytes});
  }
  std::memcpy(whole.data() + places[static_cast<size_t>(rank())].begin, own.data(), own.size());
  ranks().AllGather(whole, places);
}

void ExpertShare::AddTimes(std::map<std::string, double>& metrics) {
  const ExpertRanks::Traffic traffic = experts_.Take();
  metrics["time/experts_wait"] = traffic.seconds;
  metrics["moe/sent_bytes"] = static_cast<double>(traffic.bytes);
}

std::unique_ptr<ModelShare> MakeExpertShare(ExpertRanks& ranks, Weights& whole,
                                            ModelShare::Whole stays) {
  return ranks.there() ? std::make_unique<ExpertShare>(ranks, whole, stays) : nullptr;
}

}  // namespace plumb::learner
