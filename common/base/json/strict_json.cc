#include "common/base/json/strict_json.h"

#include <set>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "common/base/file.h"

namespace plumb {
namespace {

using Json = nlohmann::ordered_json;

// Builds the value from parse events, on a stack of its own: nlohmann's objects would keep the last
// of two equal keys, and looking a key up in an ordered object is linear, so the keys of the open
// objects are kept in sets.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(Json& root, const std::string& where, int64_t max_cost)
      : root_(root), where_(where), left_(max_cost) {}

  bool null() override { return Value(nullptr); }
  bool boolean(bool v) override { return Value(v); }
  bool number_integer(number_integer_t v) override { return Value(v); }
  bool number_unsigned(number_unsigned_t v) override { return Value(v); }
  bool number_float(number_float_t v, const string_t&) override { return Value(v); }
  bool string(string_t& v) override { return Value(std::move(v)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(Json::object()); }
  bool start_array(size_t) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& k) override {
    Spend(5);
    if (!open_.back().keys.insert(k).second) {
      throw Error(ErrorCode::kCorruption,
                  "the key '" + k.substr(0, 100) + "' stands twice in one object", where_);
    }
    open_.back().key = std::move(k);
    return true;
  }
  bool parse_error(size_t byte, const std::string&, const nlohmann::detail::exception&) override {
    throw Error(ErrorCode::kCorruption, "is not valid JSON at byte " + std::to_string(byte),
                where_);
  }

 private:
  struct Level {
    Json value;
    std::set<std::string> keys;
    std::string key;
  };

  void Spend(int64_t cost) {
    left_ -= cost;
    if (left_ < 0)
      throw Error(ErrorCode::kCorruption,
                  "holds more values than a file of this kind has reason to", where_);
  }
  bool Open(Json v) {
    Spend(2);
    if (open_.size() >= static_cast<size_t>(kMaxJsonDepth)) {
      throw Error(ErrorCode::kCorruption, "nested deeper than " + std::to_string(kMaxJsonDepth),
                  where_);
    }
    open_.push_back({std::move(v), {}, {}});
    return true;
  }
  bool Close() {
    Json done = std::move(open_.back().value);
    open_.pop_back();
    return Value(std::move(done));
  }
  bool Value(Json v) {
    Spend(2);
    if (open_.empty()) {
      root_ = std::move(v);
      return true;
    }
    Level& top = open_.back();
    if (top.value.is_array()) {
      top.value.push_back(std::move(v));
    } else {  // appended without a look-up: `keys` has said that it is new
      top.value.get_ref<Json::object_t&>().Container::emplace_back(std::move(top.key),
                                                                   std::move(v));
    }
    return true;
  }

  Json& root_;
  const std::string& where_;
  std::vector<Level> open_;
  int64_t left_;
};

}  // namespace

Json ParseStrictJson(std::string_view text, const std::string& where, int64_t max_cost) {
  Json out;
  Builder builder(out, where, max_cost + static_cast<int64_t>(text.size() / 16));
  if (!Json::sax_parse(text.begin(), text.end(), &builder))
    throw Error(ErrorCode::kCorruption, "is not valid JSON", where);
  return out;
}

Json ReadStrictJson(const std::string& path, size_t max_bytes) {
  return ParseStrictJson(RealFileSystem().ReadFile(path, max_bytes), path);
}

}  // namespace plumb
