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
T Take(std::string_view& in, const char* what) {
  if (in.size() < sizeof(T)) {
    throw Error(ErrorCode::kCorruption, std::string("a weight message ends within its ") + what, "common/weight_wire");
  }
  T value;
  std::memcpy(&value, in.data(), sizeof(T));
  in.remove_prefix(sizeof(T));
  return value;
}

}  // namespace

std::string EncodeFetchRequest(const FetchRequest& request) {
  std::string out;
  Append(out, request.than);
  Append(out, request.wait_ms);
  return out;
}

FetchRequest DecodeFetchRequest(std::string_view bytes) {
  FetchRequest request;
  request.than = Take<int64_t>(bytes, "version");
  request.wait_ms = Take<int64_t>(bytes, "waiting time");
  if (!bytes.empty() || request.than < -1 || request.wait_ms < 0) {
    throw Error(ErrorCode::kCorruption, "a weights.fetch request is malformed: version " +
                                            std::to_string(request.than) + ", wait " + std::to_string(request.wait_ms) +
                                            " ms, " + std::to_string(bytes.size()) + " bytes too many");
  }
  return request;
}

std::string EncodeReply(const PolicyVersion& version, std::span<const std::byte> flat) {
  if (version.digest.size() > kMaxDigestBytes) {
    throw Error(ErrorCode::kInvalidArgument, "a digest of " + std::to_string(version.digest.size()) + " bytes");
  }
  std::string out;
  out.reserve(sizeof(int64_t) + sizeof(uint32_t) + version.digest.size() + flat.size());
  Append(out, version.version);
  Append(out, static_cast<uint32_t>(version.digest.size()));
  out += version.digest;
  out.append(reinterpret_cast<const char*>(flat.data()), flat.size());
  return out;
}

Reply DecodeReply(std::string_view bytes) {
  Reply reply;
  reply.version.version = Take<int64_t>(bytes, "version");
  const uint32_t digest = Take<uint32_t>(bytes, "digest length");
  if (digest > kMaxDigestBytes || digest > bytes.size()) {
    throw Error(ErrorCode::kCorruption, "a weight message promises a digest of " + std::to_string(digest) +
                                            " bytes and has " + std::to_string(bytes.size()));
  }
  reply.version.digest = std::string(bytes.substr(0, digest));
  bytes.remove_prefix(digest);
  if (reply.version.version < -1 || (reply.version.version == -1 && (digest != 0 || !bytes.empty()))) {
    throw Error(ErrorCode::kCorruption, "a weight message of version " + std::to_string(reply.version.version) +
                                            " with " + std::to_string(bytes.size()) + " bytes of weights");
  }
  reply.flat = std::as_bytes(std::span<const char>(bytes.data(), bytes.size()));
  return reply;
}

}  // namespace plumb::weight_wire
