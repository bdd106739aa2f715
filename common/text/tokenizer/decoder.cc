#include "common/text/tokenizer/decoder.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "common/base/error.h"
#include "common/text/tokenizer/normalizer.h"
#include "common/text/tokenizer/split_pattern.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

// Where a step's tokens go; borrows what it calls.
class Sink {
 public:
  template <class F>
  explicit Sink(const F& f)
      : object_(&f), call_([](const void* object, std::string_view token) {
          (*static_cast<const F*>(object))(token);
        }) {}
  void operator()(std::string_view token) const { call_(object_, token); }

 private:
  const void* object_;
  void (*call_)(const void*, std::string_view);
};

constexpr std::string_view kReplacement = "\uFFFD";

// The printable stand-ins of bytes in byte-level vocabularies: printable Latin-1 stands for itself,
// the other 68 bytes are U+0100 and up, in order. -1: of none.
std::array<int16_t, 0x144> ByteOfStandIn() {
  std::array<int16_t, 0x144> out;
  out.fill(-1);
  size_t next = 0x100;
  for (size_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    out[printable ? b : next++] = static_cast<int16_t>(b);
  }
  return out;
}

std::string TextOf(const Json& j, const char* key) {
  return j.is_object() && j.contains(key) && j[key].is_string() ? j[key].get<std::string>() : "";
}

// The byte of <0x..>; the reference's parser takes a sign for the first digit, too.
std::optional<char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (size_t i = 3; i < 5; ++i) {
    const char c = token[i];
    int digit = 0;
    if (c >= '0' && c <= '9') digit = c - '0';
    else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    else if (c == '+' && i == 3) digit = 0;
    else return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<char>(value);
}

}  // namespace

bool BytesOfStandIns(std::string_view token, std::string& out) {
  static const auto kByte = ByteOfStandIn();
  out.clear();
  for (size_t at = 0; at < token.size();) {
    const Character c = DecodeUtf8(token, at);
    if (c.code >= kByte.size() || kByte[c.code] < 0) return false;
    out.push_back(static_cast<char>(kByte[c.code]));
    at += c.bytes;
  }
  return true;
}

// Tokens in, tokens out. Behind a step that makes one of all of them, what comes in are its parts.
class Decoder::Step {
 public:
  virtual ~Step() = default;
  virtual std::unique_ptr<Step> Copy() const = 0;
  virtual void Token(std::string_view token, const Sink& next) = 0;
  virtual void End(const Sink&) {}
  virtual std::string Bytes(std::string token) const { return token; }
};

namespace {

template <class Self>
class StepOf : public Decoder::Step {
 public:
  std::unique_ptr<Step> Copy() const override {
    return std::make_unique<Self>(static_cast<const Self&>(*this));
  }
};

class ByteLevel : public StepOf<ByteLevel> {
 public:
  void Token(std::string_view token, const Sink& next) override {
    std::string bytes;
    if (BytesOfStandIns(token, bytes)) pending_ += bytes;
    else pending_ += token;
    const size_t whole = pending_.size() - OpenBytes(pending_);
    std::string out = pending_.substr(0, whole);
    pending_.erase(0, whole);
    RepairUtf8(out);
    if (!out.empty()) next(out);
  }
  void End(const Sink& next) override {
    RepairUtf8(pending_);
    if (!pending_.empty()) next(std::exchange(pending_, {}));
  }
  std::string Bytes(std::string token) const override {
    std::string bytes;
    return BytesOfStandIns(token, bytes) ? bytes : token;
  }

 private:
  std::string pending_;  // the beginning of a character
};

class ByteFallback : public StepOf<ByteFallback> {
 public:
  void Token(std::string_view token, const Sink& next) override {
    if (const auto byte = ByteOfToken(token)) {
      row_.push_back(*byte);
      return;
    }
    End(next);
    next(token);
  }
  void End(const Sink& next) override {
    if (row_.empty()) return;
    const std::string row = std::exchange(row_, {});
    if (IsUtf8(row)) return next(row);
    for (size_t i = 0; i < row.size(); ++i) next(kReplacement);
  }
  std::string Bytes(std::string token) const override {
    const auto byte = ByteOfToken(token);
    return byte ? std::string(1, *byte) : token;
  }

 private:
  std::string row_;
};

class Fuse : public StepOf<Fuse> {
 public:
  void Token(std::string_view token, const Sink& next) override { next(token); }
};

// Tokens of a file without a decoder.
class Spaced : public StepOf<Spaced> {
 public:
  void Token(std::string_view token, const Sink& next) override {
    if (!std::exchange(first_, false)) next(" ");
    next(token);
  }

 private:
  bool first_ = true;
};

class Replace : public StepOf<Replace> {
 public:
  Replace(SplitPattern pattern, std::string literal, std::string by, bool fused)
      : pattern_(std::move(pattern)),
        literal_(std::move(literal)),
        by_(std::move(by)),
        fused_(fused) {}

  void Token(std::string_view token, const Sink& next) override {
    if (!fused_) return next(Bytes(std::string(token)));
    pending_ += token;
    std::string out;
    size_t at = 0;
    while (at < pending_.size()) {
      const std::string_view rest = std::string_view(pending_).substr(at);
      if (rest.starts_with(literal_)) {
        out += by_;
        at += literal_.size();
      } else if (std::string_view(literal_).starts_with(rest)) {
        break;  // may become one
      } else {
        out += rest.front();
        ++at;
      }
    }
    pending_.erase(0, at);
    if (!out.empty()) next(out);
  }
  void End(const Sink& next) override {
    if (!pending_.empty()) next(std::exchange(pending_, {}));
  }
  std::string Bytes(std::string token) const override {
    std::string out;
    pattern_.Cut(token, [&](size_t from, size_t to, bool match) {
      if (match) out += by_;
      else out.append(token, from, to - from);
    });
    return out;
  }

 private:
  const SplitPattern pattern_;
  const std::string literal_, by_;
  const bool fused_;
  std::string pending_;
};

class Metaspace : public StepOf<Metaspace> {
 public:
  Metaspace(std::string mark, bool prepended) : mark_(std::move(mark)), prepended_(prepended) {}

  void Token(std::string_view token, const Sink& next) override {
    const bool first = std::exchange(first_, false);
    next(With(token, first && prepended_ ? "" : " "));
  }
  std::string Bytes(std::string token) const override { return With(token, " "); }

 private:
  std::string With(std::string_view token, std::string_view by) const {
    std::string out;
    for (size_t at = 0; at < token.size();) {
      if (token.substr(at).starts_with(mark_)) {
        out += by;
        at += mark_.size();
      } else {
        out += token[at++];
      }
    }
    return out;
  }

  const std::string mark_;
  const bool prepended_;
  bool first_ = true;
};

// Up to `start` and `stop` times a character from the ends of each token, or of all as one.
class Strip : public StepOf<Strip> {
 public:
  Strip(std::string content, size_t start, size_t stop, bool fused)
      : content_(std::move(content)), start_(start), stop_(stop), fused_(fused), to_go_(start) {}

  void Token(std::string_view token, const Sink& next) override {
    Front(token);
    held_ += token;
    if (!fused_) return End(next);
    // The last of them may be the end.
    size_t keep = held_.size();
    for (size_t n = 0; n < stop_ && EndsAt(keep); ++n) keep -= content_.size();
    const std::string out = held_.substr(0, keep);
    held_.erase(0, keep);
    if (!out.empty()) next(out);
  }
  void End(const Sink& next) override {
    size_t keep = held_.size();
    for (size_t n = 0; n < stop_ && EndsAt(keep); ++n) keep -= content_.size();
    held_.resize(keep);
    next(std::exchange(held_, {}));
    to_go_ = start_;
  }

 private:
  void Front(std::string_view& token) {
    while (to_go_ > 0 && !token.empty()) {
      if (!token.starts_with(content_)) {
        to_go_ = 0;
        break;
      }
      token.remove_prefix(content_.size());
      --to_go_;
    }
  }
  bool EndsAt(size_t end) const {
    return end > 0 && std::string_view(held_).substr(0, end).ends_with(content_);
  }

  const std::string content_;
  const size_t start_, stop_;
  const bool fused_;
  size_t to_go_;
  std::string held_;
};

}  // namespace

Decoder::Decoder() = default;
Decoder::~Decoder() = default;
Decoder::Decoder(Decoder&&) noexcept = default;
Decoder::Run::~Run() = default;
Decoder::Run::Run(Run&&) noexcept = default;

Decoder Decoder::FromJson(const Json& j, const std::string& where) {
  Decoder out;
  bool fused = false;
  if (j.is_null()) out.steps_.push_back(std::make_unique<Spaced>());
  else out.Read(j, where, fused);
  return out;
}

void Decoder::Read(const Json& j, const std::string& where, bool& fused) {
  const auto unsupported = [&](const std::string& what) {
    throw Error(ErrorCode::kUnsupported, "decoder: " + what + " is not known here", where);
  };
  const auto corrupt = [&](const std::string& what) {
    throw Error(ErrorCode::kCorruption, "decoder: " + what, where);
  };
  const std::string type = TextOf(j, "type");
  const auto whole_tokens = [&] {
    if (fused) unsupported("'" + type + "' behind a step that joins the tokens");
  };
  if (type == "Sequence") {
    if (!j.contains("decoders") || !j["decoders"].is_array())
      corrupt("a Sequence without decoders");
    for (const Json& inner : j["decoders"]) Read(inner, where, fused);
  } else if (type == "ByteLevel") {
    whole_tokens();
    steps_.push_back(std::make_unique<ByteLevel>());
    fused = true;
  } else if (type == "ByteFallback") {
    whole_tokens();
    steps_.push_back(std::make_unique<ByteFallback>());
  } else if (type == "Fuse") {
    steps_.push_back(std::make_unique<Fuse>());
    fused = true;
  } else if (type == "Metaspace") {
    whole_tokens();
    std::string mark = TextOf(j, "replacement");
    if (mark.empty()) mark = "\u2581";
    const std::string scheme = TextOf(j, "prepend_scheme");
    const bool without = j.value("add_prefix_space", Json()) == false;
    steps_.push_back(std::make_unique<Metaspace>(std::move(mark),
                                                 scheme.empty() ? !without : scheme != "never"));
  } else if (type == "Strip") {
    const std::string content = TextOf(j, "content");
    if (content.empty() || DecodeUtf8(content, 0).bytes != content.size())
      corrupt("the content of Strip is not one character");
    const auto count = [&](const char* key) -> size_t {
      const Json n = j.value(key, Json(0));
      if (!n.is_number_unsigned() || n.get<uint64_t>() > 4096)
        corrupt(std::string(key) + " of Strip is no number up to 4096");
      return n.get<size_t>();
    };
    steps_.push_back(std::make_unique<Strip>(content, count("start"), count("stop"), fused));
  } else if (type == "Replace") {
    const Json pattern = j.value("pattern", Json());
    const auto grows = [&](size_t by_bytes, size_t shortest) {
      growth_ *= std::max<size_t>(1, (by_bytes + shortest - 1) / shortest);
      if (growth_ > kMaxGrowth) unsupported("a chain of Replace that makes this much of a text");
    };
    const std::string by = TextOf(j, "content"), text = TextOf(pattern, "String"),
                      regex = TextOf(pattern, "Regex");
    if (!regex.empty()) {
      whole_tokens();
      auto known = SplitPattern::FromRegex(regex);
      if (!known) unsupported("the pattern " + regex.substr(0, 400));
      grows(by.size(), 1);
      steps_.push_back(std::make_unique<Replace>(*std::move(known), "", by, false));
    } else {
      if (text.empty()) corrupt("Replace without a pattern");
      grows(by.size(), text.size());
      steps_.push_back(std::make_unique<Replace>(SplitPattern::Literal(text), text, by, fused));
    }
  } else {
    unsupported("'" + type + "'");
  }
}

std::string Decoder::Bytes(std::string_view token) const {
  std::string out(token);
  for (const auto& step : steps_) out = step->Bytes(std::move(out));
  return out;
}

Decoder::Run::Run(const Decoder& decoder) {
  for (const auto& step : decoder.steps_) steps_.push_back(step->Copy());
}

void Decoder::Run::From(size_t step, std::string_view token, std::string& out) {
  if (step == steps_.size()) {
    out += token;
    return;
  }
  const auto next = [&](std::string_view t) { From(step + 1, t, out); };
  steps_[step]->Token(token, Sink(next));
}

void Decoder::Run::Add(std::string_view token, std::string& out) { From(0, token, out); }

void Decoder::Run::End(std::string& out) {
  for (size_t step = 0; step < steps_.size(); ++step) {
    const auto next = [&](std::string_view t) { From(step + 1, t, out); };
    steps_[step]->End(Sink(next));
  }
}

}  // namespace plumb
