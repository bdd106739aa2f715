#include "common/weight_wire.h"

#include <bit>
#include <cstring>

#include "common/error.h"

namespace plumb::weight_wire {
namespace {

static_assert(std::endian::native == std::endian::little, "the wire is little-endian and written as it lies in memory");

template <class T>
void Append(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

template <class T>
T Read(std::string_view& in, const char* what) {
  if (in.size() < sizeof(T)) {
    throw Error(ErrorCode::kCorruption, std::string("a weight message ends within its ") + what, "common/weight_wire");
  }
  T value;
  std::memcpy(&value, in.data(), sizeof(T));
  in.remove_prefix(sizeof(T));
  return value;
}

void AppendVersion(std::string& out, const PolicyVersion& version) {
  if (version.digest.size() > kMaxDigestBytes) {
    throw Error(ErrorCode::kInvalidArgument, "a digest of " + std::to_string(version.digest.size()) + " bytes");
  }
  Append(out, version.version);
  Append(out, static_cast<uint32_t>(version.digest.size()));
  out += version.digest;
}

PolicyVersion TakeVersion(std::string_view& in) {
  PolicyVersion version;
  version.version = Read<int64_t>(in, "version");
  const uint32_t digest = Read<uint32_t>(in, "digest length");
  if (digest > kMaxDigestBytes || digest > in.size()) {
    throw Error(ErrorCode::kCorruption, "a weight message promises a digest of " + std::to_string(digest) + " bytes and has " +
                                            std::to_string(in.size()));
  }
  version.digest = std::string(in.substr(0, digest));
  in.remove_prefix(digest);
  if (version.version < -1 || (version.version == -1 && digest != 0)) {
    throw Error(ErrorCode::kCorruption, "a weight message of version " + std::to_string(version.version) + " with a digest of " +
                                            std::to_string(digest) + " bytes");
  }
  return version;
}

void ExpectEnd(std::string_view rest, const char* what) {
  if (rest.empty()) return;
  throw Error(ErrorCode::kCorruption, std::string(what) + " has " + std::to_string(rest.size()) + " bytes too many", "common/weight_wire");
}

}  // namespace

std::string EncodeFetchRequest(const FetchRequest& request) {
  std::string out;
  AppendVersion(out, request.held);
  Append(out, request.wait_ms);
  return out;
}

FetchRequest DecodeFetchRequest(std::string_view bytes) {
  FetchRequest request;
  request.held = TakeVersion(bytes);
  request.wait_ms = Read<int64_t>(bytes, "waiting time");
  ExpectEnd(bytes, "a weights.fetch request");
  if (request.wait_ms < 0) {
    throw Error(ErrorCode::kCorruption, "a weights.fetch request wants to wait " + std::to_string(request.wait_ms) + " ms");
  }
  return request;
}

std::string EncodeOffer(const Offer& offer) {
  std::string out;
  AppendVersion(out, offer.version);
  Append(out, offer.bytes);
  return out;
}

Offer DecodeOffer(std::string_view bytes) {
  Offer offer;
  offer.version = TakeVersion(bytes);
  offer.bytes = Read<uint64_t>(bytes, "size");
  ExpectEnd(bytes, "an offer of weights");
  if (offer.version.version == -1 && offer.bytes != 0) {
    throw Error(ErrorCode::kCorruption, "an offer of no version has " + std::to_string(offer.bytes) + " bytes of weights");
  }
  return offer;
}

std::string EncodePartRequest(const PartRequest& request) {
  std::string out;
  AppendVersion(out, request.version);
  Append(out, request.offset);
  Append(out, request.bytes);
  return out;
}

PartRequest DecodePartRequest(std::string_view bytes) {
  PartRequest request;
  request.version = TakeVersion(bytes);
  request.offset = Read<uint64_t>(bytes, "offset");
  request.bytes = Read<uint64_t>(bytes, "size");
  ExpectEnd(bytes, "a weights.part request");
  return request;
}

}  // namespace plumb::weight_wire
