#include "run/board/sample_table.h"

#include <fcntl.h>
#include <simdjson.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "common/text/unicode.h"
#include "run/board/line_tail.h"

namespace plumb::run {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBegins = 120;         // bytes of a prompt that are kept
constexpr size_t kMaxPrompts = 20'000;  // beginnings that are kept

uint64_t HashOf(std::string_view text) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a: the page only has to tell prompts apart
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

std::string Beginning(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t bytes = DecodeUtf8(text, at).bytes;
    if (at + bytes > kBegins) break;
    at += bytes;
  }
  return std::string(text.substr(0, at));
}

}  // namespace

struct SampleTable::Parser {
  simdjson::dom::parser json;
};

SampleTable::SampleTable(std::string path, size_t max_answers)
    : path_(std::move(path)),
      max_answers_(std::max<size_t>(2, max_answers)),
      parser_(std::make_unique<Parser>()) {}
SampleTable::~SampleTable() = default;

void SampleTable::Clear() {
  places_.clear();
  begins_.clear();
  left_out_ = unreadable_ = 0;
}

void SampleTable::Append(std::string_view lines, uint64_t at) {
  while (!lines.empty()) {
    const auto* end = static_cast<const char*>(memchr(lines.data(), '\n', lines.size()));
    const size_t n = end == nullptr ? lines.size() : static_cast<size_t>(end - lines.data());
    const std::string_view line = lines.substr(0, n);
    Place place{-1, -1, 0, at, static_cast<uint32_t>(n)};
    lines.remove_prefix(std::min(lines.size(), n + 1));
    at += n + 1;
    if (n == 0) continue;
    simdjson::dom::object object;
    if (parser_->json.parse(line.data(), n, /*realloc_if_needed=*/false).get(object) !=
            simdjson::SUCCESS ||
        object["step"].get(place.step) != simdjson::SUCCESS || place.step < 0) {
      ++unreadable_;
      continue;
    }
    if (object["lease_id"].get(place.lease) != simdjson::SUCCESS) place.lease = -1;
    std::string_view prompt;
    if (object["prompt"].get(prompt) == simdjson::SUCCESS) {
      place.prompt = HashOf(prompt);
      if (begins_.size() < kMaxPrompts && !begins_.contains(place.prompt))
        begins_.emplace(place.prompt, Beginning(prompt));
    }
    places_.push_back(place);
    if (places_.size() > max_answers_) {
      places_.pop_front();
      ++left_out_;
    }
  }
}

std::vector<int64_t> SampleTable::Steps(size_t most) const {
  std::set<int64_t> steps;
  for (const Place& place : places_) steps.insert(place.step);
  std::vector<int64_t> out(steps.begin(), steps.end());
  if (out.size() > most) out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(most));
  return out;
}

std::vector<SampleTable::PromptSeen> SampleTable::Prompts(size_t most) const {
  std::map<uint64_t, std::set<int64_t>> steps;
  for (const Place& place : places_) steps[place.prompt].insert(place.step);
  std::vector<PromptSeen> out;
  for (const auto& [prompt, of] : steps) {
    const auto begins = begins_.find(prompt);
    out.push_back({prompt, begins == begins_.end() ? "" : begins->second, {of.begin(), of.end()}});
  }
  std::sort(out.begin(), out.end(), [](const PromptSeen& a, const PromptSeen& b) {
    if (a.steps.size() != b.steps.size()) return a.steps.size() > b.steps.size();
    if (a.steps.back() != b.steps.back()) return a.steps.back() > b.steps.back();
    return a.prompt < b.prompt;
  });
  if (out.size() > most) out.resize(most);
  return out;
}

namespace {

// The lines at these places, those that are still objects.
class LineReader {
 public:
  explicit LineReader(const std::string& path)
      : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~LineReader() {
    if (file_ >= 0) close(file_);
  }
  LineReader(const LineReader&) = delete;

  Json Read(uint64_t at, uint32_t bytes) const {
    std::string line(bytes, '\0');
    size_t done = 0;
    for (ssize_t n;
         file_ >= 0 && done < bytes &&
         (n = pread(file_, line.data() + done, bytes - done, static_cast<off_t>(at + done))) > 0;)
      done += static_cast<size_t>(n);
    Json json = done == bytes ? Json::parse(line, nullptr, false) : Json();
    return json.is_object() ? json : Json();
  }

 private:
  const int file_;
};

}  // namespace

Json SampleTable::Groups(std::optional<int64_t> step, std::optional<uint64_t> prompt,
                         size_t most) const {
  Json groups = Json::array();
  const LineReader file(path_);
  std::map<std::pair<int64_t, std::pair<int64_t, uint64_t>>, size_t> where;
  for (const Place& place : places_) {
    if ((step && place.step != *step) || (prompt && place.prompt != *prompt)) continue;
    if (most-- == 0) break;
    Json line = file.Read(place.at, place.bytes);
    if (line.is_null()) continue;
    const auto [found, first] =
        where.try_emplace({place.step, {place.lease, place.prompt}}, groups.size());
    if (first) {
      Json truth = line.value("ground_truth", Json());
      if (truth == "") truth = nullptr;  // as runs once wrote it where there is none
      groups.push_back({{"step", place.step},
                        {"lease_id", place.lease},
                        {"prompt_id", std::to_string(place.prompt)},
                        {"prompt", line.value("prompt", Json())},
                        {"ground_truth", std::move(truth)},
                        {"answers", Json::array()}});
    }
    for (const char* of_group : {"step", "lease_id", "prompt", "ground_truth"})
      line.erase(of_group);
    groups[found->second]["answers"].push_back(std::move(line));
  }
  return groups;
}

Json SampleTable::Newest() const {
  if (places_.empty()) return nullptr;
  const LineReader file(path_);
  return file.Read(places_.back().at, places_.back().bytes);
}

}  // namespace plumb::run
