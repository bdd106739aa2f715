#include "learner/ranks/ranks.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace plumb::learner {
namespace {

// Of a buffer that is summed: what is received of it fits the caches beside what it is added to.
constexpr int64_t kPiece = int64_t{1} << 20;  // elements

std::string Names(const std::vector<int>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i)
    out += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  return out;
}

std::vector<Slice> SlicesOf(int64_t n, int size, int64_t unit) {
  std::vector<Slice> out;
  for (int rank = 0; rank < size; ++rank) out.push_back(SliceOf(n, rank, size, unit));
  return out;
}

void Add(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace

Slice SliceOf(int64_t n, int rank, int size, int64_t unit) {
  const int64_t units = (n + unit - 1) / unit, each = (units + size - 1) / size;
  return {.begin = std::min(n, rank * each * unit), .end = std::min(n, (rank + 1) * each * unit)};
}

void Ranks::Exchange(std::string_view what, std::span<const Part> parts) {
  mesh_.Exchange(calls_++, what, parts, RankMesh::Clock::now() + patience_);
}

std::string Ranks::Share(const std::string& text) {
  uint64_t size_of_it = text.size();
  parts_.clear();
  const auto bytes = std::as_writable_bytes(std::span(&size_of_it, 1));
  if (first()) {
    for (int peer = 1; peer < size(); ++peer) parts_.push_back({.peer = peer, .send = bytes});
  } else {
    parts_.push_back({.peer = 0, .receive = bytes});
  }
  Exchange("the size of what rank 0 says", parts_);
  std::string out = first() ? text : std::string(size_of_it, '\0');
  if (size_of_it == 0) return out;
  parts_.clear();
  const auto all = std::as_writable_bytes(std::span(out.data(), out.size()));
  if (first()) {
    for (int peer = 1; peer < size(); ++peer) parts_.push_back({.peer = peer, .send = all});
  } else {
    parts_.push_back({.peer = 0, .receive = all});
  }
  Exchange("what rank 0 says", parts_);
  return out;
}

void Ranks::GatherBytes(std::span<const std::byte> own, std::span<const Slice> places,
                        std::span<std::byte> all) {
  const auto of = [&](int rank) {
    const Slice& place = places[static_cast<size_t>(rank)];
    return all.subspan(static_cast<size_t>(place.begin), static_cast<size_t>(place.size()));
  };
  if (!own.empty()) {
    PLUMB_CHECK(own.size() == of(rank()).size(), "a rank gives as much as it has said");
    std::memcpy(of(rank()).data(), own.data(), own.size());
  }
  parts_.clear();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank()) parts_.push_back({.peer = peer, .send = of(rank()), .receive = of(peer)});
  }
  Exchange("a gather of all ranks", parts_);
}

double Ranks::Sum(double own) {
  double sum = 0;
  for (const double each : Gather(own)) sum += each;
  return sum;
}

bool Ranks::Any(bool own) {
  bool any = false;
  for (const uint8_t each : Gather(static_cast<uint8_t>(own))) any = any || each != 0;
  return any;
}

// Of every rank's slice of `values`: its owner gets it from all the others and adds it up.
void Ranks::ReducePiece(std::span<float> values, std::span<const Slice> slices) {
  const Slice mine = slices[static_cast<size_t>(rank())];
  const auto own =
      values.subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size()));
  const size_t bytes = own.size_bytes();
  received_.resize(bytes * static_cast<size_t>(size()));
  const auto from = [&](int peer) {
    return std::span(received_).subspan(static_cast<size_t>(peer) * bytes, bytes);
  };
  parts_.clear();
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const Slice theirs = slices[static_cast<size_t>(peer)];
    parts_.push_back({.peer = peer,
                      .send = std::as_bytes(values.subspan(static_cast<size_t>(theirs.begin),
                                                           static_cast<size_t>(theirs.size()))),
                      .receive = from(peer)});
  }
  Exchange("a sum over all ranks", parts_);
  // In the order of the ranks: ((0 + 1) + 2) + ...
  const auto floats = [&](int peer) { return reinterpret_cast<const float*>(from(peer).data()); };
  const auto n = static_cast<int64_t>(own.size());
  if (rank() == 0) {
    for (int peer = 1; peer < size(); ++peer) Add(own.data(), floats(peer), n);
    return;
  }
  auto* sum = reinterpret_cast<float*>(received_.data());  // of rank 0
  for (int peer = 1; peer < size(); ++peer) Add(sum, peer == rank() ? own.data() : floats(peer), n);
  std::memcpy(own.data(), sum, bytes);
}

void Ranks::AllReduce(std::span<float> values) {
  const auto n = static_cast<int64_t>(values.size());
  for (int64_t at = 0; at < n; at += kPiece * size()) {
    const auto piece = values.subspan(static_cast<size_t>(at),
                                      static_cast<size_t>(std::min(kPiece * size(), n - at)));
    std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(piece.size()), size(), 1);
    ReducePiece(piece, slices);
    for (Slice& slice : slices) {
      slice.begin *= static_cast<int64_t>(sizeof(float));
      slice.end *= static_cast<int64_t>(sizeof(float));
    }
    GatherBytes({}, slices, std::as_writable_bytes(piece));
  }
}

void Ranks::ReduceScatter(std::span<float> values, int64_t unit) {
  const std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(values.size()), size(), unit);
  const int64_t longest = slices[0].size();
  for (int64_t at = 0; at < longest; at += kPiece) {
    std::vector<Slice> pieces = slices;
    for (Slice& piece : pieces) {
      piece.begin = std::min(piece.end, piece.begin + at);
      piece.end = std::min(piece.end, piece.begin + kPiece);
    }
    ReducePiece(values, pieces);
  }
}

void Ranks::AllGather(std::span<std::byte> bytes, size_t element_size, int64_t unit) {
  const auto size_of = static_cast<int64_t>(element_size);
  std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(bytes.size()) / size_of, size(), unit);
  for (Slice& slice : slices) slice = {.begin = slice.begin * size_of, .end = slice.end * size_of};
  GatherBytes({}, slices, bytes);
}

void Ranks::CheckSame(const std::string& what, const std::string& own) {
  std::vector<size_t> sizes;
  for (const uint64_t each : Gather(static_cast<uint64_t>(own.size()))) sizes.push_back(each);
  std::vector<char> all;
  Gather(std::span<const char>(own.data(), own.size()), sizes, all);
  std::vector<std::string> said;
  size_t at = 0;
  for (const size_t each : sizes) {
    said.emplace_back(all.data() + at, each);
    at += each;
  }
  std::map<std::string, int> votes;
  for (const std::string& each : said) ++votes[each];
  if (votes.size() == 1) return;
  const auto most = std::max_element(
      votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string& right = 2 * most->second > size() ? most->first : said[0];
  std::vector<int> agree, differ;
  for (int rank = 0; rank < size(); ++rank)
    (said[static_cast<size_t>(rank)] == right ? agree : differ).push_back(rank);
  const auto differs = static_cast<size_t>(differ.front());
  throw RankLost(differ.front(), Names(differ) + (differ.size() == 1 ? " differs" : " differ") +
                                     " in " + what + ": " + said[differs] + ", of " + Names(agree) +
                                     " " + right);
}

}  // namespace plumb::learner
