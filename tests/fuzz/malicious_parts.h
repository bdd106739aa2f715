// How the corpus of malicious_corpus.h is put together. Thread safety: one thread.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "malicious_corpus.h"

namespace plumb::fuzz {

inline std::string Repeat(const std::string& text, size_t times) {
  std::string out;
  out.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

// A list of cases, most of them one file of one name.
class Corpus {
 public:
  explicit Corpus(std::string file) : file_(std::move(file)) {}
  void Add(std::string name, std::string content) {
    cases_.push_back({std::move(name), [file = file_, content = std::move(content)] {
                        return Files{{file, content}};
                      }});
  }
  void Add(std::string name, const char* content) { Add(std::move(name), std::string(content)); }
  void Add(std::string name, Files files) {
    cases_.push_back({std::move(name), [files = std::move(files)] { return files; }});
  }
  // Large ones are made when they are needed.
  void Add(std::string name, std::function<std::string()> content) {
    cases_.push_back({std::move(name), [file = file_, content = std::move(content)] {
                        return Files{{file, content()}};
                      }});
  }
  std::vector<Malicious> Take() { return std::move(cases_); }

 private:
  const std::string file_;
  std::vector<Malicious> cases_;
};

std::vector<Malicious> SafetensorsCorpus();
std::vector<Malicious> GgufCorpus();
std::vector<Malicious> TokenizerCorpus();
std::vector<Malicious> ConfigCorpus();
std::vector<Malicious> AdapterCorpus();
std::vector<Malicious> TemplateCorpus();
std::vector<Malicious> RecordCorpus();
std::vector<Malicious> PromptCorpus();
std::vector<Malicious> RowCorpus();
std::vector<Malicious> RecipeCorpus();
std::vector<Malicious> ManifestCorpus();

}  // namespace plumb::fuzz
