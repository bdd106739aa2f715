// Text <-> token ids, as `tokenizer.json` describes it: byte-pair merges over bytes or characters,
// and Unigram.
//
// Thread safety: const after construction; Encode/Decode may be called concurrently.
// Errors: kCorruption / kUnsupported naming the file and the field. Regular expressions are
// accepted only from an allow-list of known patterns, each scanned in linear time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

// The text of tokens that come one by one, for one thread. What comes out is valid UTF-8 that no
// later token changes.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  virtual void Add(int32_t id, std::string& out) = 0;  // an id without a token adds nothing
  virtual void End(std::string& out) = 0;              // what was held back; nothing comes after it

 protected:
  TokenDecoder() = default;
};

// What the post-processor of a tokenizer.json puts around a text.
struct Surroundings {
  std::vector<int32_t> front, back;
};

class Tokenizer {
 public:
  // `directory`/tokenizer.json; docs/models.md says which.
  static std::unique_ptr<Tokenizer> Load(const std::string& directory);
  // Same from the JSON text (`where` for messages).
  static std::unique_ptr<Tokenizer> Parse(std::string_view json, const std::string& where);
  // Of a model from scratch. "arithmetic": characters and whole tags (<think>, <answer>, <eos>,
  // ...), longest match; "bytes": the 256 bytes as ids, behind them <pad>, <bos>, <eos>, <system>,
  // <user>, <assistant> and those tags. Their own tokenizer.json round-trips through Load.
  static std::unique_ptr<Tokenizer> BuiltIn(const std::string& name);

  virtual ~Tokenizer() = default;
  // `allow_special`: added tokens written in the text become their id; else they are encoded as
  // plain text. No begin- or end-of-sequence token is added.
  virtual std::vector<int32_t> Encode(std::string_view text, bool allow_special = true) const = 0;
  // The text that the file's decoder makes of them: valid UTF-8, with U+FFFD where it puts it.
  virtual std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;
  // By default the bytes of tokens in a row, repaired. Borrows the tokenizer.
  virtual std::unique_ptr<TokenDecoder> MakeDecoder() const;
  // What the post-processor puts around a text; Encode does not.
  virtual const Surroundings& surroundings() const;
  // Bytes of one token as they stand in a text (may be a part of a UTF-8 character); nothing for an
  // id that no token has.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  virtual int32_t size() const = 0;  // V
  // id of a token or added token, -1 if none
  virtual int32_t Find(std::string_view token) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  // tokenizer.json as loaded, for export
  virtual const std::string& json() const = 0;
  bool Has(int32_t id) const { return id >= 0 && id < size() && !TokenBytes(id).empty(); }
  // Ids below `vocab` that no token has, ascending. Those of `ends` are left out: what ends an
  // answer needs no text.
  std::vector<int32_t> IdsWithoutToken(int64_t vocab, std::span<const int32_t> ends) const;

 protected:
  Tokenizer() = default;
};

}  // namespace plumb
