#include "learner/ranks/ranks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "learner/ranks/nccl_group.h"

namespace plumb::learner {
namespace {

// Of a buffer that is summed: what is received of it fits the caches beside what it is added to.
constexpr int64_t kPiece = int64_t{1} << 20;  // elements
constexpr int kMostMembers = 1024;            // kMostRanks of rendezvous.h

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

std::vector<int> AllOf(int size) {
  std::vector<int> out(static_cast<size_t>(size));
  std::iota(out.begin(), out.end(), 0);
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

Ranks::Ranks(RankMesh mesh, std::chrono::milliseconds patience)
    : link_(std::make_shared<Link>(Link{std::move(mesh), {}})),
      members_(AllOf(link_->mesh.size())),
      rank_(link_->mesh.rank()),
      patience_(patience),
      calls_(0) {}

Ranks::Ranks(std::shared_ptr<Link> link, std::vector<int> members, int rank, uint64_t first_call,
             std::chrono::milliseconds patience)
    : link_(std::move(link)),
      members_(std::move(members)),
      rank_(rank),
      patience_(patience),
      calls_(first_call) {}

std::unique_ptr<Ranks> Ranks::Among(std::span<const int> ranks) const {
  std::vector<int> members;
  int own = -1;
  for (const int rank : ranks) {
    PLUMB_CHECK(rank >= 0 && rank < size() && (members.empty() || rank > ranks[members.size() - 1]),
                "ranks of a group ascend");
    if (rank == rank_) own = static_cast<int>(members.size());
    members.push_back(members_[static_cast<size_t>(rank)]);
  }
  PLUMB_CHECK(own >= 0, "a rank is in the groups that it makes");
  // Calls of different groups between the same two ranks are told apart by their numbers.
  constexpr int kBits = 11, kCallBits = 64 - 2 * kBits;
  static_assert(kMostMembers < 1 << kBits);
  const uint64_t first_call = (static_cast<uint64_t>(members.front() + 1) << (kCallBits + kBits)) |
                              (static_cast<uint64_t>(members.back() + 1) << kCallBits);
  return std::unique_ptr<Ranks>(new Ranks(link_, std::move(members), own, first_call, patience_));
}

void Ranks::UseDevice(std::shared_ptr<NcclGroup> group) {
  device_ = std::move(group);
  link_->devices.push_back(device_);
}

void Ranks::Exchange(std::string_view what, std::span<Part> parts) {
  for (Part& part : parts) part.peer = members_[static_cast<size_t>(part.peer)];
  link_->mesh.Exchange(calls_++, what, parts, RankMesh::Clock::now() + patience_);
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

std::vector<std::string> Ranks::Gather(const std::string& own) {
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
  return said;
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
void Ranks::ReducePiece(std::span<float> values, std::span<const Slice> slices, Wire wire,
                        std::span<float> residual) {
  const auto part = [](auto of, const Slice& slice) {
    return of.subspan(static_cast<size_t>(slice.begin), static_cast<size_t>(slice.size()));
  };
  const Slice mine = slices[static_cast<size_t>(rank())];
  const std::span<float> own = part(values, mine);
  const auto bytes = static_cast<size_t>(WireBytes(wire, mine.size()));
  received_.resize(bytes * static_cast<size_t>(size()));
  const auto from = [&](int peer) {
    return std::span(received_).subspan(static_cast<size_t>(peer) * bytes, bytes);
  };
  if (!residual.empty()) Add(own.data(), part(residual, mine).data(), mine.size());
  size_t to_send = 0;
  for (int peer = 0; wire != Wire::kFloat32 && peer < size(); ++peer)
    to_send += static_cast<size_t>(WireBytes(wire, slices[static_cast<size_t>(peer)].size()));
  sent_.resize(to_send);
  parts_.clear();
  size_t at = 0;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) continue;
    const Slice& slice = slices[static_cast<size_t>(peer)];
    const std::span<float> theirs = part(values, slice);
    std::span<const std::byte> send = std::as_bytes(theirs);
    if (wire != Wire::kFloat32) {
      const std::span<float> kept = part(residual, slice);
      Add(kept.data(), theirs.data(), slice.size());
      const auto to =
          std::span(sent_).subspan(at, static_cast<size_t>(WireBytes(wire, slice.size())));
      at += to.size();
      WriteWire(wire, kept, to);
      KeepLost(wire, to, kept);
      send = to;
    }
    parts_.push_back({.peer = peer, .send = send, .receive = from(peer)});
  }
  Exchange("a sum over all ranks", parts_);
  // In the order of the ranks: ((0 + 1) + 2) + ...
  sum_.resize(own.size());
  numbers_.resize(own.size());
  for (int peer = 0; peer < size(); ++peer) {
    const std::span<float> into = peer == 0 ? std::span(sum_) : std::span(numbers_);
    if (peer == rank()) std::copy(own.begin(), own.end(), into.begin());
    else ReadWire(wire, from(peer), into);
    if (peer > 0) Add(sum_.data(), numbers_.data(), mine.size());
  }
  std::copy(sum_.begin(), sum_.end(), own.begin());
  if (!residual.empty()) {
    const std::span<float> kept = part(residual, mine);
    std::fill(kept.begin(), kept.end(), 0.0f);
  }
}

// What the rounding lost of numbers that went out; nothing of such as are not finite, which skip
// the update.
void Ranks::KeepLost(Wire wire, std::span<const std::byte> sent, std::span<float> numbers) {
  numbers_.resize(numbers.size());
  ReadWire(wire, sent, numbers_);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const float lost = numbers[i] - numbers_[i];
    numbers[i] = std::isfinite(lost) ? lost : 0.0f;
  }
}

// Of every rank's slice, all get what its owner has.
void Ranks::SpreadPiece(std::span<float> values, std::span<const Slice> slices, Wire wire,
                        std::span<float> residual) {
  std::vector<Slice> places;
  int64_t bytes = 0;
  for (const Slice& slice : slices) {
    const int64_t size_of_it = WireBytes(wire, slice.size());
    places.push_back({.begin = bytes, .end = bytes + size_of_it});
    bytes += size_of_it;
  }
  if (wire == Wire::kFloat32) return GatherBytes({}, places, std::as_writable_bytes(values));
  received_.resize(static_cast<size_t>(bytes));
  const auto of = [&](int peer) {
    const Slice& place = places[static_cast<size_t>(peer)];
    return std::span(received_).subspan(static_cast<size_t>(place.begin),
                                        static_cast<size_t>(place.size()));
  };
  const Slice mine = slices[static_cast<size_t>(rank())];
  const auto kept =
      residual.subspan(static_cast<size_t>(mine.begin), static_cast<size_t>(mine.size()));
  std::copy_n(values.begin() + mine.begin, mine.size(), kept.begin());
  WriteWire(wire, kept, of(rank()));
  KeepLost(wire, of(rank()), kept);
  GatherBytes({}, places, received_);
  for (int peer = 0; peer < size(); ++peer) {
    const Slice& slice = slices[static_cast<size_t>(peer)];
    ReadWire(wire, of(peer),
             values.subspan(static_cast<size_t>(slice.begin), static_cast<size_t>(slice.size())));
  }
}

void Ranks::AllReduce(std::span<float> values, Wire wire, std::span<float> residual) {
  PLUMB_CHECK(residual.size() == (wire == Wire::kFloat32 ? 0 : values.size()));
  const auto n = static_cast<int64_t>(values.size());
  for (int64_t at = 0; at < n; at += kPiece * size()) {
    const auto first = static_cast<size_t>(at),
               many = static_cast<size_t>(std::min(kPiece * size(), n - at));
    const auto piece = values.subspan(first, many);
    const auto lost = residual.empty() ? residual : residual.subspan(first, many);
    const std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(many), size(), 1);
    ReducePiece(piece, slices, wire, lost);
    SpreadPiece(piece, slices, wire, lost);
  }
}

void Ranks::ReduceScatter(std::span<float> values, int64_t unit, Wire wire,
                          std::span<float> residual) {
  PLUMB_CHECK(residual.size() == (wire == Wire::kFloat32 ? 0 : values.size()));
  const std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(values.size()), size(), unit);
  const int64_t longest = slices[0].size();
  for (int64_t at = 0; at < longest; at += kPiece) {
    std::vector<Slice> pieces = slices;
    for (Slice& piece : pieces) {
      piece.begin = std::min(piece.end, piece.begin + at);
      piece.end = std::min(piece.end, piece.begin + kPiece);
    }
    ReducePiece(values, pieces, wire, residual);
  }
}

void Ranks::AllGather(std::span<std::byte> bytes, size_t element_size, int64_t unit) {
  const auto size_of = static_cast<int64_t>(element_size);
  std::vector<Slice> slices = SlicesOf(static_cast<int64_t>(bytes.size()) / size_of, size(), unit);
  for (Slice& slice : slices) slice = {.begin = slice.begin * size_of, .end = slice.end * size_of};
  GatherBytes({}, slices, bytes);
}

void Ranks::Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                     std::span<std::byte> in, std::span<const int64_t> from) {
  parts_.clear();
  size_t sent = 0, came = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const auto goes = static_cast<size_t>(to[static_cast<size_t>(peer)]),
               comes = static_cast<size_t>(from[static_cast<size_t>(peer)]);
    const auto send = out.subspan(std::exchange(sent, sent + goes), goes);
    const auto receive = in.subspan(std::exchange(came, came + comes), comes);
    if (peer != rank()) {
      parts_.push_back({.peer = peer, .send = send, .receive = receive});
      continue;
    }
    PLUMB_CHECK(goes == comes, "a rank takes what it gives itself");
    if (goes > 0) std::memcpy(receive.data(), send.data(), goes);
  }
  PLUMB_CHECK(sent == out.size() && came == in.size(), "parts of all that is exchanged");
  Exchange("an exchange of all ranks", parts_);
}

int64_t Ranks::sent_bytes() const {
  int64_t sent = link_->mesh.sent_bytes();
  for (const auto& device : link_->devices) sent += device->sent_bytes();
  return sent;
}

void Ranks::CheckSame(const std::string& what, const std::string& own) {
  const std::vector<std::string> said = Gather(own);
  std::map<std::string, int> votes;
  for (const std::string& each : said) ++votes[each];
  if (votes.size() == 1) return;
  const auto most = std::max_element(
      votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const std::string& right = 2 * most->second > size() ? most->first : said[0];
  std::vector<int> agree, differ;
  std::string differs;  // what the first of them said
  for (int rank = 0; rank < size(); ++rank) {
    const std::string& each = said[static_cast<size_t>(rank)];
    if (each != right && differ.empty()) differs = each;
    (each == right ? agree : differ).push_back(members_[static_cast<size_t>(rank)]);
  }
  throw RankLost(differ.front(), Names(differ) + (differ.size() == 1 ? " differs" : " differ") +
                                     " in " + what + ": " + differs + ", of " + Names(agree) + " " +
                                     right);
}

}  // namespace plumb::learner
