#include "common/text/tokenizer/tokenizer.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>
#include <utility>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/json/strict_json.h"
#include "common/base/mutex.h"
#include "common/text/tokenizer/added_tokens.h"
#include "common/text/tokenizer/byte_pairs.h"
#include "common/text/tokenizer/decoder.h"
#include "common/text/tokenizer/normalizer.h"
#include "common/text/tokenizer/post_processor.h"
#include "common/text/tokenizer/pre_tokenizer.h"
#include "common/text/tokenizer/unigram.h"
#include "common/text/unicode.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;
constexpr size_t kMaxFileBytes = size_t{256} << 20;
constexpr int64_t kMaxId = int64_t{1} << 24;

// Of a tokenizer without a decoder of its own.
class ByteDecoder : public TokenDecoder {
 public:
  explicit ByteDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void Add(int32_t id, std::string& out) override {
    pending_ += tokenizer_.TokenBytes(id);
    const size_t whole = pending_.size() - OpenBytes(pending_);
    std::string done = pending_.substr(0, whole);
    pending_.erase(0, whole);
    RepairUtf8(done);
    out += done;
  }
  void End(std::string& out) override {
    RepairUtf8(pending_);
    out += std::exchange(pending_, {});
  }

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // the beginning of a character
};

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(std::string json, const Json& j, const std::string& where)
      : json_(std::move(json)), where_(where) {
    if (!j.is_object()) Corrupt("is not a JSON object");
    if (!j.contains("model") || !j["model"].is_object()) Corrupt("has no 'model'");
    pre_ = PreTokenizer::FromJson(j.value("pre_tokenizer", Json()), where_);
    normalizer_ = Normalizer::FromJson(j.value("normalizer", Json()), where_);
    decoder_.emplace(Decoder::FromJson(j.value("decoder", Json()), where_));
    surroundings_ = ReadPostProcessor(j.value("post_processor", Json()), where_);
    const Json& model = j["model"];
    const std::string type = TypeOf(model);
    if (type == "BPE") ReadBytePairs(model);
    else if (type == "Unigram") ReadUnigram(model);
    else Unsupported("a model of type '" + type + "'");
    ReadAdded(j.value("added_tokens", Json::array()));
    for (size_t id = 0; id < texts_.size(); ++id) {
      bytes_.push_back(decoder_->Bytes(texts_[id]));
      if (bytes_.back().empty()) bytes_.back() = texts_[id];
    }
    for (const int32_t id : surroundings_.front) CheckAround(id);
    for (const int32_t id : surroundings_.back) CheckAround(id);
  }

  std::vector<int32_t> Encode(std::string_view text, bool allow_special) const override {
    std::vector<int32_t> ids;
    Lease encoder(*this);
    const PreTokenizer::Word word = [&](std::string_view w) { encoder->Encode(w, ids); };
    const auto plain = [&](std::string_view part, bool first) { pre_.Split(part, first, word); };
    const auto added = [&](int32_t id) { ids.push_back(id); };
    if (!allow_special) {
      if (normalizer_.empty()) plain(text, true);
      else plain(normalizer_.Apply(text), true);
      return ids;
    }
    // Raw added tokens are looked for in the text as it is, the others in what is left, after
    // normalisation.
    raw_added_.Split(text, added, [&](std::string_view rest) {
      const bool first = rest.data() == text.data();
      const auto normal = [&](std::string_view whole) {
        normalized_added_.Split(whole, added, [&](std::string_view part) {
          plain(part, first && part.data() == whole.data());
        });
      };
      if (normalizer_.empty()) normal(rest);
      else normal(normalizer_.Apply(rest));
    });
    return ids;
  }
  std::unique_ptr<TokenDecoder> MakeDecoder() const override {
    return std::make_unique<Spelling>(*this);
  }
  const Surroundings& surroundings() const override { return surroundings_; }
  std::string_view TokenBytes(int32_t id) const override {
    if (id < 0)
      throw Error(ErrorCode::kInvalidArgument, "token " + std::to_string(id) + " is no token",
                  where_);
    if (id >= size()) return {};  // a row of the head beyond the vocabulary
    return bytes_[static_cast<size_t>(id)];
  }
  int32_t size() const override { return static_cast<int32_t>(texts_.size()); }
  int32_t Find(std::string_view token) const override {
    if (const auto it = added_.find(std::string(token)); it != added_.end()) return it->second;
    return model_->Find(token);
  }
  bool IsSpecial(int32_t id) const override {
    return id >= 0 && id < size() && special_[static_cast<size_t>(id)];
  }
  const std::string& json() const override { return json_; }

 private:
  // An encoder for the time of a call.
  class Lease {
   public:
    explicit Lease(const JsonTokenizer& t) : tokenizer_(t), encoder_(t.TakeEncoder()) {}
    ~Lease() { tokenizer_.GiveEncoder(std::move(encoder_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    WordEncoder* operator->() const { return encoder_.get(); }

   private:
    const JsonTokenizer& tokenizer_;
    std::unique_ptr<WordEncoder> encoder_;
  };
  class Spelling : public TokenDecoder {
   public:
    explicit Spelling(const JsonTokenizer& t) : tokenizer_(t), run_(t.decoder_->Start()) {}
    void Add(int32_t id, std::string& out) override {
      if (id < 0 || id >= tokenizer_.size()) return;
      const std::string& text = tokenizer_.texts_[static_cast<size_t>(id)];
      if (!text.empty()) run_.Add(text, out);
    }
    void End(std::string& out) override { run_.End(out); }

   private:
    const JsonTokenizer& tokenizer_;
    Decoder::Run run_;
  };

  std::unique_ptr<WordEncoder> TakeEncoder() const {
    {
      MutexLock lock(mutex_);
      if (!idle_.empty()) {
        auto out = std::move(idle_.back());
        idle_.pop_back();
        return out;
      }
    }
    return model_->MakeEncoder();
  }
  void GiveEncoder(std::unique_ptr<WordEncoder> encoder) const {
    MutexLock lock(mutex_);
    idle_.push_back(std::move(encoder));
  }

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
  void CheckAround(int32_t id) const {
    if (id < size() && !texts_[static_cast<size_t>(id)].empty()) return;
    Corrupt("post_processor: no token has the id " + std::to_string(id));
  }
  void Put(int32_t id, std::string text) {
    const auto at = static_cast<size_t>(id);
    if (texts_.size() <= at) {
      texts_.resize(at + 1);
      special_.resize(at + 1);
    }
    texts_[at] = std::move(text);
  }
  // Text of a vocabulary entry -> what it stands for in a word; false when it has a character that
  // stands for no byte.
  bool InWord(std::string_view token, std::string& out) const {
    if (pre_.byte_level()) return BytesOfStandIns(token, out);
    out = token;
    return true;
  }

  static bool Flag(const Json& j, const char* key) {
    return j.contains(key) && j[key].is_boolean() && j[key].get<bool>();
  }
  static std::string TypeOf(const Json& model) {
    if (model.contains("type") && model["type"].is_string())
      return model["type"].get<std::string>();
    // Older files do not say: a list with scores is Unigram's.
    return model.contains("vocab") && model["vocab"].is_array() ? "Unigram" : "BPE";
  }

  void ReadBytePairs(const Json& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (model.contains(key) && model[key].is_string() && !model[key].get<std::string>().empty())
        Unsupported(std::string("model.") + key);
    }
    if (model.contains("dropout") && model["dropout"].is_number() &&
        model["dropout"].get<double>() > 0)
      Unsupported("model.dropout");
    if (pre_.byte_level() && Flag(model, "byte_fallback"))
      Unsupported("model.byte_fallback beside ByteLevel");
    auto pairs = std::make_unique<BytePairs>(
        BytePairsOptions{.byte_level = pre_.byte_level(),
                         .ignore_merges = Flag(model, "ignore_merges"),
                         .byte_fallback = Flag(model, "byte_fallback")});
    ReadVocabulary(model, *pairs);
    ReadUnknown(model, *pairs);
    ReadMerges(model, *pairs);
    pairs->Seal();
    model_ = std::move(pairs);
  }

  void ReadUnigram(const Json& model) {
    if (pre_.byte_level()) Unsupported("Unigram beside ByteLevel");
    if (!model.contains("vocab") || !model["vocab"].is_array())
      Corrupt("model.vocab is not a list of tokens and scores");
    auto unigram = std::make_unique<Unigram>(Flag(model, "byte_fallback"));
    for (const Json& entry : model["vocab"]) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
        Corrupt("model.vocab holds something else than tokens with scores");
      const auto score = entry[1].get<double>();
      if (!std::isfinite(score)) Corrupt("a score in model.vocab is not finite");
      const auto& text = entry[0].get_ref<const std::string&>();
      const auto id = static_cast<int32_t>(texts_.size());
      if (id >= kMaxId) Corrupt("model.vocab is too long");
      unigram->AddToken(text, score, where_);
      Put(id, text);
    }
    if (model.contains("unk_id") && !model["unk_id"].is_null()) {
      const int32_t id = IdOf(model["unk_id"], "unk_id");
      if (id >= size()) Corrupt("model.unk_id is not in the vocabulary");
      unigram->SetUnknown(id);
    }
    model_ = std::move(unigram);
  }

  void ReadVocabulary(const Json& model, BytePairs& pairs) {
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
      Put(id, token);
      std::string bytes;
      if (InWord(token, bytes)) pairs.AddToken(bytes, id, where_);
      else not_in_words_.emplace(token, id);  // an added token's text: no merge makes it
    }
  }
  // The id of an entry of model.vocab by its text there; -1 if none.
  int32_t InVocabulary(const TokenModel& model, const std::string& token) const {
    std::string bytes;
    if (InWord(token, bytes)) return model.Find(bytes);
    const auto it = not_in_words_.find(token);
    return it == not_in_words_.end() ? -1 : it->second;
  }
  void ReadUnknown(const Json& model, BytePairs& pairs) {
    if (!model.contains("unk_token") || model["unk_token"].is_null()) return;
    if (!model["unk_token"].is_string()) Corrupt("model.unk_token is no text");
    const auto token = model["unk_token"].get<std::string>();
    const int32_t id = InVocabulary(pairs, token);
    if (id < 0) Corrupt("model.unk_token '" + token.substr(0, 100) + "' is not in the vocabulary");
    pairs.SetUnknown(id, Flag(model, "fuse_unk"));
  }
  void ReadMerges(const Json& model, BytePairs& pairs) {
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
      if (!InWord(a, left) || !InWord(b, right))
        Corrupt("the merge '" + a + " " + b + "' has a character that is no byte");
      pairs.AddMerge(left, right, where_);
    }
  }
  // A token of the vocabulary keeps the id that it has there, whatever the list says; one that the
  // list has twice is as the last entry says, under its first id. So do the reference's readers.
  void ReadAdded(const Json& list) {
    if (!list.is_array()) Corrupt("added_tokens is not a list");
    const auto farthest = static_cast<int64_t>(texts_.size() + list.size()) + 65536;
    const auto vocabulary = static_cast<int64_t>(texts_.size());
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
      const int32_t known = InVocabulary(*model_, content);
      if (const auto earlier = added_.find(content); earlier != added_.end()) {
        id = earlier->second;
      } else if (known >= 0) {
        id = known;
      } else if (id < vocabulary && !texts_[static_cast<size_t>(id)].empty()) {
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
        if (entry.normalized) {
          entry.token.content = normalizer_.Apply(content);
          if (entry.token.content.empty()) continue;  // nothing is left to be found
          texts_[static_cast<size_t>(entry.token.id)] = entry.token.content;  // so it is written
        }
        (entry.normalized ? normalized_added_ : raw_added_).Add(std::move(entry.token));
      }
    }
    raw_added_.Seal();
    normalized_added_.Seal();
  }

  std::string json_, where_;
  PreTokenizer pre_;
  Normalizer normalizer_;
  std::optional<Decoder> decoder_;
  Surroundings surroundings_;
  std::unique_ptr<TokenModel> model_;
  std::vector<std::string> texts_;  // by id, as the file has them; empty for an id that nothing has
  std::vector<std::string> bytes_;  // by id, what they stand for
  std::vector<bool> special_;
  std::unordered_map<std::string, int32_t> added_;
  // Entries of the vocabulary that stand for no bytes.
  std::unordered_map<std::string, int32_t> not_in_words_;
  AddedTokens raw_added_, normalized_added_;
  mutable Mutex mutex_;
  mutable std::vector<std::unique_ptr<WordEncoder>> idle_ PLUMB_GUARDED_BY(mutex_);
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

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string out;
  const auto decoder = MakeDecoder();
  for (const int32_t id : ids) {
    if (!(skip_special && IsSpecial(id))) decoder->Add(id, out);
  }
  decoder->End(out);
  return out;
}

std::unique_ptr<TokenDecoder> Tokenizer::MakeDecoder() const {
  return std::make_unique<ByteDecoder>(*this);
}

const Surroundings& Tokenizer::surroundings() const {
  static const Surroundings kNone;
  return kNone;
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
  return std::make_unique<JsonTokenizer>(std::string(json), j, where);
}

}  // namespace plumb
