#include "common/text/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <functional>
#include <unordered_map>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/text/tokenizer/added_tokens.h"
#include "common/text/tokenizer/byte_pairs.h"
#include "common/text/tokenizer/pre_tokenizer.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int64_t kMaxId = int64_t{1} << 24;

// The printable stand-ins of bytes in byte-level vocabularies: printable Latin-1 stands for itself,
// the other 68 bytes are U+0100 and up, in order.
std::unordered_map<char32_t, char> ByteOfStandIn() {
  std::unordered_map<char32_t, char> out;
  char32_t next = 0x100;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    out[printable ? b : next++] = static_cast<char>(b);
  }
  return out;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(std::string json, const Json& j, const std::string& where)
      : json_(std::move(json)), where_(where) {
    const auto corrupt = [&](const std::string& what) {
      throw Error(ErrorCode::kCorruption, what, where_);
    };
    if (!j.is_object()) corrupt("is not a JSON object");
    if (!j.contains("model") || !j["model"].is_object()) corrupt("has no 'model'");
    const Json& model = j["model"];
    const std::string type = model.contains("type") && model["type"].is_string()
                                 ? model["type"].get<std::string>()
                                 : "BPE";
    if (type != "BPE") Unsupported("a model of type '" + type + "'");
    if (Flag(model, "byte_fallback")) Unsupported("model.byte_fallback");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (model.contains(key) && model[key].is_string() && !model[key].get<std::string>().empty()) {
        Unsupported(std::string("model.") + key);
      }
    }
    if (model.contains("dropout") && model["dropout"].is_number() &&
        model["dropout"].get<double>() > 0)
      Unsupported("model.dropout");
    pre_ = PreTokenizer::FromJson(j.value("pre_tokenizer", Json()), where_);
    ReadNormalizer(j.value("normalizer", Json()));
    pairs_ = std::make_unique<BytePairs>(pre_.byte_level, Flag(model, "ignore_merges"));
    ReadVocabulary(model);
    ReadUnknown(model);
    ReadMerges(model);
    ReadAdded(j.value("added_tokens", Json::array()));
  }

  std::vector<int32_t> Encode(std::string_view text, bool allow_special) const override {
    std::vector<int32_t> ids;
    const auto plain = [&](std::string_view part) {
      pre_.Split(part, [&](std::string_view word) { pairs_->Encode(word, ids); });
    };
    if (!allow_special) {
      plain(Normalized(text));
      return ids;
    }
    // Raw added tokens are looked for in the text as it is, the others in what is left, after
    // normalisation.
    raw_added_.Split(
        text, [&](int32_t id) { ids.push_back(id); },
        [&](std::string_view rest) {
          const std::string normal = Normalized(rest);
          normalized_added_.Split(
              normal, [&](int32_t id) { ids.push_back(id); }, plain);
        });
    return ids;
  }
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out;
    for (int32_t id : ids) {
      if (!(skip_special && IsSpecial(id))) out += TokenBytes(id);
    }
    return out;
  }
  std::string_view TokenBytes(int32_t id) const override {
    if (id < 0)
      throw Error(ErrorCode::kInvalidArgument, "token " + std::to_string(id) + " is no token",
                  where_);
    if (id >= size()) return {};  // a row of the head beyond the vocabulary
    return tokens_[static_cast<size_t>(id)];
  }
  int32_t size() const override { return static_cast<int32_t>(tokens_.size()); }
  int32_t Find(std::string_view token) const override {
    if (const auto it = added_.find(std::string(token)); it != added_.end()) return it->second;
    return pairs_->Find(token);
  }
  bool IsSpecial(int32_t id) const override {
    return id >= 0 && id < size() && special_[static_cast<size_t>(id)];
  }
  const std::string& json() const override { return json_; }

 private:
  [[noreturn]] void Unsupported(const std::string& what) const {
    throw Error(ErrorCode::kUnsupported, what + " is not known here", where_);
  }
  [[noreturn]] void Corrupt(const std::string& what) const {
    throw Error(ErrorCode::kCorruption, what, where_);
  }

  int32_t IdOf(const Json& j, const std::string& token) const {
    if (!j.is_number_integer()) Corrupt("the id of token '" + token + "' is not a whole number");
    const auto id = j.get<int64_t>();
    if (id < 0 || id >= kMaxId)
      Corrupt("the id of token '" + token + "' is out of range: " + std::to_string(id));
    return static_cast<int32_t>(id);
  }
  void Put(int32_t id, std::string bytes) {
    const auto at = static_cast<size_t>(id);
    if (tokens_.size() <= at) {
      tokens_.resize(at + 1);
      special_.resize(at + 1);
    }
    tokens_[at] = std::move(bytes);
  }
  // Text of a vocabulary entry -> bytes it stands for; false when it has a character that is no
  // stand-in.
  bool Bytes(std::string_view token, std::string& out) const {
    out.clear();
    if (!pre_.byte_level) {
      out = token;
      return true;
    }
    static const std::unordered_map<char32_t, char> kByte = ByteOfStandIn();
    for (size_t at = 0; at < token.size();) {
      const Character c = DecodeUtf8(token, at);
      const auto it = kByte.find(c.code);
      if (it == kByte.end()) return false;
      out.push_back(it->second);
      at += c.bytes;
    }
    return true;
  }

  static bool Flag(const Json& j, const char* key) {
    return j.contains(key) && j[key].is_boolean() && j[key].get<bool>();
  }

  void ReadNormalizer(const Json& j) {
    if (j.is_null()) return;
    const std::string type = j.is_object() && j.contains("type") && j["type"].is_string()
                                 ? j["type"].get<std::string>()
                                 : "?";
    if (type == "Sequence") {
      if (!j.contains("normalizers") || !j["normalizers"].is_array())
        Corrupt("normalizer: a Sequence without normalizers");
      for (const Json& step : j["normalizers"]) ReadNormalizer(step);
      return;
    }
    if (type != "NFC") Unsupported("normalizer '" + type + "'");
    nfc_ = true;  // once or several times is the same
  }
  std::string Normalized(std::string_view text) const {
    return nfc_ ? ComposeNfc(text) : std::string(text);
  }

  void ReadVocabulary(const Json& model) {
    if (!model.contains("vocab") || !model["vocab"].is_object())
      Corrupt("model.vocab is not an object");
    std::vector<bool> seen;
    // before there is room for them all
    const int64_t farthest = 4 * static_cast<int64_t>(model["vocab"].size()) + 65536;
    for (const auto& [token, value] : model["vocab"].items()) {
      const int32_t id = IdOf(value, token);
      if (id > farthest)
        Corrupt("the ids of model.vocab are far apart: token '" + token.substr(0, 100) + "' has " +
                std::to_string(id));
      if (seen.size() <= static_cast<size_t>(id)) seen.resize(static_cast<size_t>(id) + 1);
      if (seen[static_cast<size_t>(id)]) Corrupt("two tokens have the id " + std::to_string(id));
      seen[static_cast<size_t>(id)] = true;
      std::string bytes;
      if (Bytes(token, bytes)) {
        Put(id, bytes);
        pairs_->AddToken(std::move(bytes), id, where_);
      } else {
        // an added token whose text also stands in the vocabulary: no merge makes it
        Put(id, token);
        not_bytes_.emplace(token, id);
      }
    }
  }
  // The id of an entry of model.vocab by its text there; -1 if none.
  int32_t InVocabulary(const std::string& token) const {
    std::string bytes;
    if (Bytes(token, bytes)) return pairs_->Find(bytes);
    const auto it = not_bytes_.find(token);
    return it == not_bytes_.end() ? -1 : it->second;
  }
  void ReadUnknown(const Json& model) {
    if (!model.contains("unk_token") || model["unk_token"].is_null()) return;
    if (!model["unk_token"].is_string()) Corrupt("model.unk_token is no text");
    const auto token = model["unk_token"].get<std::string>();
    const int32_t id = InVocabulary(token);
    if (id < 0) Corrupt("model.unk_token '" + token.substr(0, 100) + "' is not in the vocabulary");
    pairs_->SetUnknown(id, Flag(model, "fuse_unk"));
  }
  void ReadMerges(const Json& model) {
    if (!model.contains("merges") || !model["merges"].is_array())
      Corrupt("model.merges is not a list");
    std::string left, right;
    for (const Json& merge : model["merges"]) {
      std::string a, b;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space == std::string::npos) Corrupt("the merge '" + text + "' has no space");
        a = text.substr(0, space);
        b = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        a = merge[0].get<std::string>();
        b = merge[1].get<std::string>();
      } else {
        Corrupt("model.merges holds something else than pairs");
      }
      if (!Bytes(a, left) || !Bytes(b, right))
        Corrupt("the merge '" + a + " " + b + "' has a character that is no byte");
      pairs_->AddMerge(left, right, where_);
    }
  }
  // A token of the vocabulary keeps the id that it has there, whatever the list says; one that the
  // list has twice is as the last entry says, under its first id. So do the reference's readers.
  void ReadAdded(const Json& list) {
    if (!list.is_array()) Corrupt("added_tokens is not a list");
    const auto farthest = static_cast<int64_t>(tokens_.size() + list.size()) + 65536;
    const auto vocabulary = static_cast<int64_t>(tokens_.size());
    struct Entry {
      AddedToken token;
      bool normalized = false;
    };
    std::unordered_map<std::string, Entry> entries;
    std::unordered_map<int32_t, std::string> taken;
    std::vector<std::string> order;
    for (const Json& t : list) {
      if (!t.is_object() || !t.contains("content") || !t["content"].is_string() ||
          !t.contains("id")) {
        Corrupt("an added token has no content or id");
      }
      const auto content = t["content"].get<std::string>();
      const std::string shown = content.substr(0, 100);
      if (content.empty()) Corrupt("an added token is empty");
      if (content.size() > kMaxAddedTokenBytes) {
        Corrupt("the added token '" + shown + "...' is longer than " +
                std::to_string(kMaxAddedTokenBytes) + " bytes");
      }
      int32_t id = IdOf(t["id"], shown);
      if (id > farthest)
        Corrupt("the added token '" + shown +
                "' has an id far from the vocabulary: " + std::to_string(id));
      const int32_t known = InVocabulary(content);
      if (const auto earlier = added_.find(content); earlier != added_.end()) {
        id = earlier->second;
      } else if (known >= 0) {
        id = known;
      } else if (id < vocabulary && !tokens_[static_cast<size_t>(id)].empty()) {
        Corrupt("the added token '" + shown + "' has the id of another token, " +
                std::to_string(id));
      }
      const auto owner = taken.emplace(id, content);
      if (!owner.second && owner.first->second != content) {
        Corrupt("the added tokens '" + owner.first->second.substr(0, 100) + "' and '" + shown +
                "' have one id, " + std::to_string(id));
      }
      added_[content] = id;
      Put(id, content);
      special_[static_cast<size_t>(id)] = Flag(t, "special");
      entries[content] = {
          {content, id, Flag(t, "single_word"), Flag(t, "lstrip"), Flag(t, "rstrip")},
          Flag(t, "normalized")};
      order.push_back(content);
    }
    // Two that normalisation makes one: a special token goes first.
    for (const bool special : {true, false}) {
      for (const std::string& content : order) {
        const auto found = entries.find(content);
        if (found == entries.end() ||
            special_[static_cast<size_t>(found->second.token.id)] != special)
          continue;
        Entry entry = std::move(found->second);
        entries.erase(found);
        if (entry.normalized) entry.token.content = Normalized(content);
        (entry.normalized ? normalized_added_ : raw_added_).Add(std::move(entry.token));
      }
    }
    raw_added_.Seal();
    normalized_added_.Seal();
  }

  std::string json_, where_;
  PreTokenizer pre_;
  bool nfc_ = false;
  std::unique_ptr<BytePairs> pairs_;
  std::vector<std::string> tokens_;  // by id; empty for an id that nothing has
  std::vector<bool> special_;
  std::unordered_map<std::string, int32_t> added_;
  // Entries of the vocabulary that stand for no bytes.
  std::unordered_map<std::string, int32_t> not_bytes_;
  AddedTokens raw_added_, normalized_added_;
};

}  // namespace

std::vector<int32_t> Tokenizer::IdsWithoutToken(int64_t vocab,
                                                std::span<const int32_t> ends) const {
  std::vector<int32_t> out;
  for (int32_t id = 0; id < vocab; ++id) {
    if (!Has(id) && std::find(ends.begin(), ends.end(), id) == ends.end()) out.push_back(id);
  }
  return out;
}

std::unique_ptr<Tokenizer> Tokenizer::Load(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  if (!RealFileSystem().Exists(path))
    throw Error(ErrorCode::kNotFound,
                RealFileSystem().Exists(directory)
                    ? "has no tokenizer.json: the model's belongs beside its config.json"
                    : "there is no such folder",
                directory);
  return Parse(RealFileSystem().ReadFile(path, kMaxFileBytes), path);
}

std::unique_ptr<Tokenizer> Tokenizer::Parse(std::string_view json, const std::string& where) {
  // Tens of thousands of added tokens, of speech for example, cost more than their share: half a
  // byte more for each of the text.
  const Json j =
      ParseStrictJson(json, where, kMaxJsonCost + static_cast<int64_t>(json.size() / 32));
  return std::make_unique<BpeTokenizer>(std::string(json), j, where);
}

}  // namespace plumb
