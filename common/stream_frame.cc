#include "common/stream_frame.h"

#include "common/crc32c.h"

namespace plumb {
namespace {
constexpr char kTag[] = "PST1";
}  // namespace

std::string EncodeStreamFrame(const StreamFrame& f) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto run = builder.CreateString(f.run);
  const auto producer = builder.CreateString(f.producer);
  const auto acked = builder.CreateVector(f.acked);
  const auto pending = builder.CreateVector(f.pending);
  const auto reason = builder.CreateString(f.reason);
  builder.Finish(wire::CreateStreamFrame(builder, f.kind, run, producer, f.epoch, f.seq, f.attempt, f.message_kind,
                                         f.policy_version, f.checksum, f.acked_below, f.beat, f.receiver,
                                         f.credit_messages, f.credit_bytes, acked, pending, reason),
                 kTag);
  return std::string(reinterpret_cast<const char*>(builder.GetBufferPointer()), builder.GetSize());
}

StreamFrame DecodeStreamFrame(std::string_view bytes) {
  return WithVerifiedFrame<wire::StreamFrame>(bytes, kTag, [](const wire::StreamFrame* f) {
    if (f->kind() < wire::StreamKind::Beat || f->kind() > wire::StreamKind::Refused) {
      throw Error(ErrorCode::kCorruption, "a frame of unknown kind");
    }
    if (f->producer()->size() > 256 || f->run()->size() > 256) throw Error(ErrorCode::kCorruption, "names are too long");
    StreamFrame out;
    out.kind = f->kind();
    out.run = TextOf(f->run());
    out.producer = TextOf(f->producer());
    out.epoch = f->epoch();
    out.seq = f->seq();
    out.attempt = f->attempt();
    out.message_kind = f->message_kind();
    out.policy_version = f->policy_version();
    out.checksum = f->checksum();
    out.acked_below = f->acked_below();
    out.beat = f->beat();
    out.receiver = f->receiver();
    out.credit_messages = f->credit_messages();
    out.credit_bytes = f->credit_bytes();
    out.acked = NumbersOf(f->acked());
    out.pending = NumbersOf(f->pending());
    out.reason = TextOf(f->reason());
    return out;
  });
}

uint32_t StreamChecksum(const StreamFrame& f, std::string_view payload) {
  uint32_t sum = Crc32c(f.run, Crc32c(f.producer));
  const uint64_t fields[] = {f.epoch, f.seq, f.message_kind, static_cast<uint64_t>(f.policy_version), payload.size()};
  sum = Crc32c(fields, sizeof fields, sum);
  return Crc32c(payload, sum);
}

}  // namespace plumb
