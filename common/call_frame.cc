#include "common/call_frame.h"

#include "common/crc32c.h"
#include "common/stream_frame.h"

namespace plumb {
namespace {
constexpr char kTag[] = "PCA1";
}  // namespace

std::string EncodeCallFrame(const CallFrame& f) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto client = builder.CreateString(f.client);
  const auto verb = builder.CreateString(f.verb);
  const auto message = builder.CreateString(f.message);
  const auto where = builder.CreateString(f.where);
  const auto ids = builder.CreateVector(f.ids);
  builder.Finish(wire::CreateCallFrame(builder, f.kind, client, f.id, verb, f.timeout_ms, f.error, message, where,
                                       f.checksum, f.beat, ids),
                 kTag);
  return std::string(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
}

CallFrame DecodeCallFrame(std::string_view bytes) {
  return WithVerifiedFrame<wire::CallFrame>(bytes, kTag, [](const wire::CallFrame* f) {
    if (f->kind() < wire::CallKind::Request || f->kind() > wire::CallKind::Known) {
      throw Error(ErrorCode::kCorruption, "a frame of unknown kind");
    }
    if (f->client()->size() > 256) throw Error(ErrorCode::kCorruption, "a name is too long");
    CallFrame out;
    out.kind = f->kind();
    out.client = TextOf(f->client());
    out.id = f->id();
    out.verb = TextOf(f->verb());
    out.timeout_ms = f->timeout_ms();
    out.error = f->error();
    out.message = TextOf(f->message());
    out.where = TextOf(f->where());
    out.checksum = f->checksum();
    out.beat = f->beat();
    out.ids = NumbersOf(f->ids());
    return out;
  });
}

uint32_t CallChecksum(const CallFrame& f, std::string_view payload) {
  uint32_t sum = Crc32c(f.verb, Crc32c(f.client));
  const uint64_t fields[] = {f.id, f.error, payload.size()};
  return Crc32c(payload, Crc32c(fields, sizeof fields, sum));
}

}  // namespace plumb
