// Texts of tokens -> text: the steps of "decoder" in tokenizer.json.
//
// Purpose: tokens go through the steps one by one, and each step gives out what no later token can
// change, so that whole and incremental decoding are the same thing. What comes out is valid UTF-8:
// ByteLevel puts U+FFFD for every beginning of a character that does not go on, ByteFallback for
// every byte of a row that is not valid as a whole (such a row is held back until it ends).
// Thread safety: a Decoder is const; a Run is for one thread and borrows its Decoder.
// Errors: kUnsupported naming the file, the key and what is not known.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

class Decoder {
 public:
  class Step;
  // One text in the making.
  class Run {
   public:
    ~Run();
    Run(Run&&) noexcept;
    void Add(std::string_view token, std::string& out);
    // What was held back.
    void End(std::string& out);

   private:
    friend class Decoder;
    explicit Run(const Decoder& decoder);
    void From(size_t step, std::string_view token, std::string& out);

    std::vector<std::unique_ptr<Step>> steps_;
  };

  // null: tokens with a space between them, as the reference has it.
  static Decoder FromJson(const nlohmann::ordered_json& j, const std::string& where);
  ~Decoder();
  Decoder(Decoder&&) noexcept;

  Run Start() const { return Run(*this); }
  // What one token stands for wherever it stands; may be a part of a character.
  std::string Bytes(std::string_view token) const;

 private:
  Decoder();
  void Read(const nlohmann::ordered_json& j, const std::string& where, bool& fused);

  std::vector<std::unique_ptr<const Step>> steps_;
  size_t growth_ = 1;  // how many bytes Replace steps may make of one
};

// Text of a byte-level vocabulary -> the bytes it stands for; false when it has a character that is
// no stand-in of a byte.
bool BytesOfStandIns(std::string_view token, std::string& out);

}  // namespace plumb
