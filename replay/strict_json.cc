#include "replay/strict_json.h"

#include <string>
#include <utility>
#include <vector>

#include "common/error.h"

namespace plumb::replay {
namespace {

using nlohmann::json;

// Builds the value from the parser's events; the parser itself is iterative, so depth is bounded here and nowhere deeper.
class Builder : public nlohmann::json_sax<json> {
 public:
  json Take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return Add(json(nullptr)); }
  bool boolean(bool v) override { return Add(json(v)); }
  bool number_integer(number_integer_t v) override { return Add(json(v)); }
  bool number_unsigned(number_unsigned_t v) override { return Add(json(v)); }
  bool number_float(number_float_t v, const string_t&) override { return Add(json(v)); }
  bool string(string_t& v) override { return Add(json(std::move(v))); }
  bool binary(binary_t&) override { return Fail("binary values are not JSON"); }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) return Fail("the key '" + name.substr(0, 60) + "' stands twice in one object");
    keys_.back() = std::move(name);
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    return Fail("not JSON at byte " + std::to_string(position) + " (" + e.what() + ")");
  }

 private:
  bool Fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
    return false;
  }
  json* Place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[keys_.back()] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }
  bool Add(json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(json value) {
    if (static_cast<int>(open_.size()) == kMaxJsonDepth) {
      return Fail("nested deeper than " + std::to_string(kMaxJsonDepth));
    }
    json* placed = Place(std::move(value));  // stays put: its parent grows only after it is closed
    open_.push_back(placed);
    keys_.emplace_back();
    return true;
  }
  bool Close() {
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> open_;
  std::vector<std::string> keys_;
  std::string problem_;
};

}  // namespace

json ParseStrictJson(std::string_view text) {
  Builder builder;
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    throw Error(ErrorCode::kCorruption, builder.problem().empty() ? "not JSON" : builder.problem());
  }
  return builder.Take();
}

}  // namespace plumb::replay
