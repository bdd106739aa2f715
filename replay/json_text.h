// JSON written as text, without a tree: strings with their escapes, lists of messages.
//
// Thread safety: pure functions. Bytes are taken as they are: who may hold broken UTF-8 repairs it first (RepairUtf8).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/trajectory.h"

namespace plumb::replay {

// Appends `text` as a JSON string, quotes included.
void AppendJsonText(std::string& out, std::string_view text);
// Appends [{"role": ..., "content": ..., other fields}, ...].
void AppendJsonMessages(std::string& out, const std::vector<Message>& messages);
// From now on the message's content is the text that it holds, whatever the row wrote there (null,
// parts). REQUIRES: fields_json as common/trajectory.h has it.
void TakeContentAsText(Message& message);
// Every byte that begins no valid sequence becomes U+FFFD; false when nothing had to change.
bool RepairUtf8(std::string& text);

}  // namespace plumb::replay
